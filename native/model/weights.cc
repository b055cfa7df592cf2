#include "model/weights.h"

#include <array>

#include "base/mapped_file.h"

namespace parley {
namespace {

// Where a role's numbers go: rows first_row.. of a packed matrix, or of a vector of floats.
struct Destination {
  const char* name;
  int64_t rows;
  int64_t cols;
  PackedWeight* matrix;
  std::vector<float>* vector;
  int64_t first_row;
  bool required;
  bool filled = false;
};

constexpr size_t kNumRoles = static_cast<size_t>(TensorRole::mlp_down_bias) + 1;
using Destinations = std::array<Destination, kNumRoles>;

// The table of roles; `layer` is null for the tensors outside the blocks.
Destinations make_destinations(const ModelSpec& spec, Weights& weights, LayerWeights& layer) {
  const int64_t hidden = spec.hidden_size, mlp = spec.intermediate_size, vocab = spec.vocab_size;
  const int64_t query = spec.num_heads * spec.head_dim, kv = spec.num_kv_heads * spec.head_dim;
  auto matrix = [](const char* name, int64_t rows, int64_t cols, PackedWeight& to, int64_t first_row = 0, bool required = true) {
    return Destination{name, rows, cols, &to, nullptr, first_row, required};
  };
  auto vector = [](const char* name, int64_t rows, std::vector<float>& to, bool required, int64_t first_row = 0) {
    return Destination{name, rows, 1, nullptr, &to, first_row, required};
  };
  // In the order of TensorRole.
  return {{
      matrix("embedding", vocab, hidden, weights.embedding),
      matrix("unembedding", vocab, hidden, weights.unembedding, 0, !spec.tie_word_embeddings),
      vector("final_norm_weight", hidden, weights.final_norm_weight, true),
      vector("final_norm_bias", hidden, weights.final_norm_bias, true),
      vector("input_norm_weight", hidden, layer.input_norm_weight, true),
      vector("input_norm_bias", hidden, layer.input_norm_bias, true),
      vector("post_attention_norm_weight", hidden, layer.post_attention_norm_weight, true),
      vector("post_attention_norm_bias", hidden, layer.post_attention_norm_bias, true),
      matrix("query_weight", query, hidden, layer.qkv, 0),
      vector("query_bias", query, layer.qkv_bias, false, 0),
      matrix("key_weight", kv, hidden, layer.qkv, query),
      vector("key_bias", kv, layer.qkv_bias, false, query),
      matrix("value_weight", kv, hidden, layer.qkv, query + kv),
      vector("value_bias", kv, layer.qkv_bias, false, query + kv),
      matrix("attention_out_weight", hidden, query, layer.attention_out),
      vector("attention_out_bias", hidden, layer.attention_out_bias, false),
      matrix("mlp_up_weight", mlp, hidden, layer.mlp_up),
      vector("mlp_up_bias", mlp, layer.mlp_up_bias, false),
      matrix("mlp_down_weight", hidden, mlp, layer.mlp_down),
      vector("mlp_down_bias", hidden, layer.mlp_down_bias, false),
  }};
}

bool outside_blocks(TensorRole role) { return role <= TensorRole::final_norm_bias; }

std::string tensor_name(const Destination& destination, const TensorSource& source) {
  return outside_blocks(source.role) ? destination.name : "layer " + std::to_string(source.layer) + " " + destination.name;
}

// Every number that will be read lies inside the file, and the shape is the decoder's.
void check_source(const TensorSource& source, const Destination& to, const std::string& name, const MappedFile& file) {
  const int64_t rows = checked_mul(source.group_rows, source.num_groups);
  check(rows == to.rows && source.cols == to.cols, file.path(), ": ", name, ": expected shape [", to.rows, ", ", to.cols,
        "], found [", rows, ", ", source.cols, "]");
  const int64_t last_row = checked_add(checked_add(source.first_row, checked_mul(source.group_stride, source.num_groups - 1)),
                                       source.group_rows);
  check(last_row <= source.stored_rows, file.path(), ": ", name, ": expected ", source.stored_rows, " stored rows, needs ", last_row);
  const int64_t bytes = checked_mul(checked_mul(source.stored_rows, source.cols), dtype_bytes(source.dtype));
  check(checked_add(source.offset, bytes) <= file.size(), file.path(), ": ", name, ": expected ", bytes, " bytes at offset ",
        source.offset, ", the file has ", file.size(), " bytes");
}

void copy_vector(const TensorSource& source, const Destination& to, const char* stored, int64_t total_rows) {
  to.vector->resize(static_cast<size_t>(total_rows), 0.0f);
  for (int64_t i = 0; i < to.rows; ++i) {
    const int64_t stored_row = source.first_row + (i / source.group_rows) * source.group_stride + i % source.group_rows;
    (*to.vector)[static_cast<size_t>(to.first_row + i)] = load_number(stored, stored_row, source.dtype);
  }
}

void pack_matrix(const TensorSource& source, const Destination& to, const char* stored, Backend& backend) {
  const int64_t stride = source.cols * dtype_bytes(source.dtype);
  for (int64_t group = 0; group < source.num_groups; ++group) {
    const char* first = stored + (source.first_row + group * source.group_stride) * stride;
    backend.pack_rows(*to.matrix, to.first_row + group * source.group_rows, first, source.dtype, source.group_rows, stride);
  }
}

}  // namespace

Weights load_weights(const ModelSpec& spec, const std::vector<TensorSource>& sources, const std::vector<std::string>& files,
                     DType dtype, Backend& backend, const std::function<void(double)>& progress) {
  Weights weights;
  const size_t num_layers = static_cast<size_t>(spec.num_layers);
  weights.layers.resize(num_layers);
  const int64_t hidden = spec.hidden_size, query = spec.num_heads * spec.head_dim;
  const int64_t qkv = query + 2 * spec.num_kv_heads * spec.head_dim;

  // One arena for all the matrices, in the order in which a step reads them.
  std::vector<PackedWeight*> matrices;
  auto plan = [&](PackedWeight& weight, int64_t rows, int64_t cols) {
    weight = {nullptr, dtype, rows, cols};
    matrices.push_back(&weight);
  };
  plan(weights.embedding, spec.vocab_size, hidden);
  for (LayerWeights& layer : weights.layers) {
    plan(layer.qkv, qkv, hidden);
    plan(layer.attention_out, hidden, query);
    plan(layer.mlp_up, spec.intermediate_size, hidden);
    plan(layer.mlp_down, hidden, spec.intermediate_size);
  }
  if (!spec.tie_word_embeddings) plan(weights.unembedding, spec.vocab_size, hidden);
  for (const PackedWeight* weight : matrices) {
    const int64_t bytes = backend.packed_bytes(weight->rows, weight->cols, dtype);
    weights.num_bytes = checked_add(weights.num_bytes, checked_add(bytes, Arena::kCacheLine));
  }
  weights.arena = std::make_unique<Arena>(weights.num_bytes);
  for (PackedWeight* weight : matrices) weight->data = weights.arena->take(backend.packed_bytes(weight->rows, weight->cols, dtype));
  if (spec.tie_word_embeddings) weights.unembedding = weights.embedding;

  std::vector<std::unique_ptr<MappedFile>> mapped;
  for (const std::string& path : files) mapped.push_back(std::make_unique<MappedFile>(path));

  std::vector<Destinations> destinations;
  for (LayerWeights& layer : weights.layers) destinations.push_back(make_destinations(spec, weights, layer));

  // First every check, then the copying: a broken checkpoint is refused at once.
  int64_t total_bytes = 0;
  for (const TensorSource& source : sources) {
    check(source.layer < spec.num_layers, "tensor of layer ", source.layer, ": the model has ", spec.num_layers, " layers");
    check(static_cast<size_t>(source.file) < files.size(), "tensor of file ", source.file, ": there are ", files.size(), " files");
    Destination& to = destinations[static_cast<size_t>(source.layer)][static_cast<size_t>(source.role)];
    const std::string name = tensor_name(to, source);
    const MappedFile& file = *mapped[static_cast<size_t>(source.file)];
    check(!to.filled, file.path(), ": ", name, ": expected once, found again");
    check(!outside_blocks(source.role) || source.layer == 0, file.path(), ": ", name, ": expected layer 0, found ", source.layer);
    check(source.role != TensorRole::unembedding || !spec.tie_word_embeddings, file.path(),
          ": unembedding: expected none in a model with tied embeddings");
    check_source(source, to, name, file);
    to.filled = true;
    total_bytes += to.rows * to.cols * dtype_bytes(source.dtype);
  }
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (size_t role = 0; role < kNumRoles; ++role) {
      const Destination& to = destinations[layer][role];
      const bool expected = to.required && (layer == 0 || !outside_blocks(static_cast<TensorRole>(role)));
      check(!expected || to.filled, "layer ", layer, " ", to.name, ": expected in the checkpoint, found nothing");
    }
  }

  int64_t done_bytes = 0;
  for (const TensorSource& source : sources) {
    const Destination& to = destinations[static_cast<size_t>(source.layer)][static_cast<size_t>(source.role)];
    const MappedFile& file = *mapped[static_cast<size_t>(source.file)];
    if (to.matrix != nullptr) {
      pack_matrix(source, to, file.data() + source.offset, backend);
      // The rows of a fused tensor belong to several sources; its pages come back from the page cache if they are needed again.
      file.forget(source.offset, source.stored_rows * source.cols * dtype_bytes(source.dtype));
    } else {
      const bool is_qkv = to.vector == &weights.layers[static_cast<size_t>(source.layer)].qkv_bias;
      copy_vector(source, to, file.data() + source.offset, is_qkv ? qkv : to.rows);
    }
    weights.num_parameters += to.rows * to.cols;
    done_bytes += to.rows * to.cols * dtype_bytes(source.dtype);
    progress(static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  }
  return weights;
}

}  // namespace parley
