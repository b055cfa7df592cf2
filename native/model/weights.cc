#include "model/weights.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "base/mapped_file.h"

namespace parley {
namespace {

// Where a source's numbers go: the rank's slice of them to rows first_row.. of a packed matrix, or of a vector of total_rows floats.
// Neither: the model has no use for the role.
struct Destination {
  const char* name = "";
  int64_t rows = 0;  // of the whole model
  int64_t cols = 1;
  PackedWeight* matrix = nullptr;
  Span<const float>* vector = nullptr;
  int64_t first_row = 0;
  int64_t total_rows = 0;  // 0: the slice's
  int64_t num_parts = 1;   // tensors that share the role
  Slice slice{};
};

constexpr size_t kNumRoles = static_cast<size_t>(TensorRole::cross_out_weight) + 1;

bool outside_blocks(TensorRole role) { return role < TensorRole::attention_norm_weight; }
bool of_cross_attention(TensorRole role) { return role >= TensorRole::cross_norm_weight; }

// A table of biases by bucket and head, kept row by row.
Destination relative_bias(const ModelSpec& spec, Span<const float>& to) {
  return {"relative_bias", spec.relative_buckets, spec.num_heads, nullptr, spec.relative_buckets > 0 ? &to : nullptr};
}

// The table of roles. `layer` is not looked at for roles outside the blocks; `part` names an expert, others share their destination.
Destination destination(const RankModel& model, TensorRole role, Weights& weights, LayerWeights& layer, int64_t part) {
  const ModelSpec& spec = model.whole;
  const bool crosses = spec.num_encoder_layers > 0;
  const int64_t hidden = spec.hidden_size, mlp = spec.intermediate_size, vocab = spec.vocab_size, embedding = embedding_size(spec);
  const int64_t query = spec.num_heads * spec.head_dim, kv = spec.num_kv_heads * spec.head_dim;
  const bool projected = embedding != hidden;
  const NormPlacement placement = spec.norm_placement;
  const bool norm_before = placement != NormPlacement::after;
  const bool norm_after = placement == NormPlacement::after || placement == NormPlacement::around;
  // What the rank has of them, which decides where the one starts behind the other.
  const int64_t own_query = model.own.num_heads * spec.head_dim, own_kv = model.own.num_kv_heads * spec.head_dim;
  const int64_t own_mlp = model.own.intermediate_size, own_up = spec.gated_mlp ? own_mlp : 0;
  const int64_t num_experts = static_cast<int64_t>(layer.experts.size()), expert_size = spec.moe_intermediate_size;
  const bool dense = num_experts == 0;

  const auto matrix = [](const char* name, int64_t rows, int64_t cols, PackedWeight& to, bool used = true, int64_t first_row = 0) {
    return Destination{name, rows, cols, used ? &to : nullptr, nullptr, first_row};
  };
  const auto vector = [](const char* name, int64_t rows, Span<const float>& to, bool used = true, int64_t first_row = 0,
                         int64_t total_rows = 0) {
    return Destination{name, rows, 1, nullptr, used ? &to : nullptr, first_row, total_rows};
  };
  const auto qk_norm = [&](const char* name, int64_t heads, int64_t own_heads, Span<const float>& to) {
    if (spec.qk_norm == QkNorm::whole) return vector(name, heads * spec.head_dim, to);
    if (spec.qk_norm == QkNorm::each_head) {
      return Destination{name, spec.head_dim, 1, nullptr, &to, 0, own_heads * spec.head_dim, heads};
    }
    return vector(name, spec.head_dim, to, spec.qk_norm == QkNorm::head);
  };
  const auto expert = [&](const char* name, int64_t rows, int64_t cols, PackedWeight ExpertWeights::*to, int64_t first_row) {
    PackedWeight* matrix = part < num_experts ? &(layer.experts[static_cast<size_t>(part)].*to) : nullptr;
    return Destination{name, rows, cols, matrix, nullptr, first_row, 0, std::max<int64_t>(num_experts, 1)};
  };
  switch (role) {
    case TensorRole::embedding: return matrix("embedding", vocab, embedding, weights.embedding);
    case TensorRole::unembedding:
      return matrix("unembedding", vocab, embedding, weights.unembedding.weight, !spec.tie_word_embeddings);
    case TensorRole::unembedding_bias: return vector("unembedding_bias", vocab, weights.unembedding.bias);
    case TensorRole::position_embedding:
      return matrix("position_embedding", spec.max_position, hidden, weights.position_embedding, spec.position_embedding);
    case TensorRole::embedding_projection:
      return matrix("embedding_projection", hidden, embedding, weights.embedding_projection, projected);
    case TensorRole::output_projection: return matrix("output_projection", embedding, hidden, weights.output_projection, projected);
    case TensorRole::embedding_norm_weight:
      return vector("embedding_norm_weight", hidden, weights.embedding_norm.weight, spec.embedding_norm);
    case TensorRole::embedding_norm_bias:
      return vector("embedding_norm_bias", hidden, weights.embedding_norm.bias, spec.embedding_norm);
    case TensorRole::final_norm_weight: return vector("final_norm_weight", hidden, weights.final_norm.weight, spec.final_norm);
    case TensorRole::final_norm_bias: return vector("final_norm_bias", hidden, weights.final_norm.bias, spec.final_norm);
    case TensorRole::relative_bias: return relative_bias(spec, weights.relative_bias);
    case TensorRole::attention_norm_weight:
      return vector("attention_norm_weight", hidden, layer.attention_norm.weight, norm_before);
    case TensorRole::attention_norm_bias: return vector("attention_norm_bias", hidden, layer.attention_norm.bias, norm_before);
    case TensorRole::attention_output_norm_weight:
      return vector("attention_output_norm_weight", hidden, layer.attention_output_norm.weight, norm_after);
    case TensorRole::mlp_norm_weight:
      return vector("mlp_norm_weight", hidden, layer.mlp_norm.weight, norm_before && spec.topology != Topology::parallel_shared);
    case TensorRole::mlp_norm_bias:
      return vector("mlp_norm_bias", hidden, layer.mlp_norm.bias, norm_before && spec.topology != Topology::parallel_shared);
    case TensorRole::mlp_output_norm_weight:
      return vector("mlp_output_norm_weight", hidden, layer.mlp_output_norm.weight, norm_after);
    case TensorRole::query_weight: return matrix("query_weight", query, hidden, layer.qkv.weight);
    case TensorRole::query_bias: return vector("query_bias", query, layer.qkv.bias, true, 0, own_query + 2 * own_kv);
    case TensorRole::key_weight: return matrix("key_weight", kv, hidden, layer.qkv.weight, true, own_query);
    case TensorRole::key_bias: return vector("key_bias", kv, layer.qkv.bias, true, own_query, own_query + 2 * own_kv);
    case TensorRole::value_weight: return matrix("value_weight", kv, hidden, layer.qkv.weight, true, own_query + own_kv);
    case TensorRole::value_bias: return vector("value_bias", kv, layer.qkv.bias, true, own_query + own_kv, own_query + 2 * own_kv);
    case TensorRole::query_norm_weight: return qk_norm("query_norm_weight", spec.num_heads, model.own.num_heads, layer.query_norm.weight);
    case TensorRole::query_norm_bias: return qk_norm("query_norm_bias", spec.num_heads, model.own.num_heads, layer.query_norm.bias);
    case TensorRole::key_norm_weight: return qk_norm("key_norm_weight", spec.num_kv_heads, model.own.num_kv_heads, layer.key_norm.weight);
    case TensorRole::key_norm_bias: return qk_norm("key_norm_bias", spec.num_kv_heads, model.own.num_kv_heads, layer.key_norm.bias);
    case TensorRole::attention_out_weight: return matrix("attention_out_weight", hidden, query, layer.attention_out.weight);
    case TensorRole::attention_out_bias: return vector("attention_out_bias", hidden, layer.attention_out.bias);
    case TensorRole::mlp_gate_weight: return matrix("mlp_gate_weight", mlp, hidden, layer.mlp_up.weight, dense && spec.gated_mlp);
    case TensorRole::mlp_gate_bias: return vector("mlp_gate_bias", mlp, layer.mlp_up.bias, dense && spec.gated_mlp, 0, own_up + own_mlp);
    case TensorRole::mlp_up_weight: return matrix("mlp_up_weight", mlp, hidden, layer.mlp_up.weight, dense, own_up);
    case TensorRole::mlp_up_bias: return vector("mlp_up_bias", mlp, layer.mlp_up.bias, dense, own_up, own_up + own_mlp);
    case TensorRole::mlp_down_weight: return matrix("mlp_down_weight", hidden, mlp, layer.mlp_down.weight, dense);
    case TensorRole::mlp_down_bias: return vector("mlp_down_bias", hidden, layer.mlp_down.bias, dense);
    case TensorRole::router_weight: return matrix("router_weight", spec.num_experts, hidden, layer.router.weight, !dense);
    case TensorRole::expert_gate_weight: return expert("expert_gate_weight", expert_size, hidden, &ExpertWeights::gate_up, 0);
    case TensorRole::expert_up_weight:
      return expert("expert_up_weight", expert_size, hidden, &ExpertWeights::gate_up, model.own.moe_intermediate_size);
    case TensorRole::expert_down_weight: return expert("expert_down_weight", hidden, expert_size, &ExpertWeights::down, 0);
    case TensorRole::cross_norm_weight: return vector("cross_norm_weight", hidden, layer.cross_norm.weight, crosses);
    case TensorRole::cross_query_weight: return matrix("cross_query_weight", query, hidden, layer.cross_query.weight, crosses);
    case TensorRole::cross_key_weight: return matrix("cross_key_weight", kv, hidden, layer.cross_kv.weight, crosses);
    case TensorRole::cross_value_weight: return matrix("cross_value_weight", kv, hidden, layer.cross_kv.weight, crosses, own_kv);
    case TensorRole::cross_out_weight: return matrix("cross_out_weight", hidden, query, layer.cross_out.weight, crosses);
  }
  fail("tensor role ", static_cast<int>(role), " has no destination");
}

// The same for the encoder, whose blocks are the decoder's without cross-attention.
Destination encoder_destination(const RankModel& model, TensorRole role, Weights& weights, LayerWeights& layer, int64_t part) {
  if (role == TensorRole::final_norm_weight) {
    return {"final_norm_weight", model.whole.hidden_size, 1, nullptr, &weights.encoder_final_norm.weight};
  }
  if (role == TensorRole::relative_bias) return relative_bias(model.whole, weights.encoder_relative_bias);
  if (outside_blocks(role) || of_cross_attention(role)) return {};
  return destination(model, role, weights, layer, part);
}

std::string tensor_name(const Destination& destination, TensorRole role, bool encoder, int64_t layer, int64_t part) {
  std::string name = encoder ? "encoder " : "";
  if (!outside_blocks(role)) name += "layer " + std::to_string(layer) + " ";
  name += destination.name;
  return destination.num_parts > 1 ? name + " " + std::to_string(part) : name;
}

// Every number that will be read lies inside the file, and the shape is the model's.
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
  check(to.matrix == nullptr || source.addend == 0, file.path(), ": ", name, ": expected no addend for a matrix");
  check(to.vector == nullptr || !source.transposed, file.path(), ": ", name, ": expected a vector that is not transposed");
}

// Vectors in the host's memory, on their way to the backend's. What no source fills is 0.
using HostVectors = std::map<Span<const float>*, std::vector<float>>;

void copy_vector(const TensorSource& source, const Destination& to, const char* stored, HostVectors& vectors) {
  const Slice& slice = to.slice;
  if (!slice.parts.has(source.part)) return;
  const int64_t total_rows = to.total_rows > 0 ? to.total_rows : slice.rows.count;
  std::vector<float>& vector = vectors[to.vector];
  vector.resize(static_cast<size_t>(checked_mul(total_rows, slice.cols.count)), 0.0f);
  const int64_t first_row = to.first_row + (source.part - slice.parts.first) * slice.rows.count;
  float* numbers = vector.data() + first_row * slice.cols.count;
  for (int64_t i = slice.rows.first; i < slice.rows.end(); ++i) {
    const int64_t stored_row = source.first_row + (i / source.group_rows) * source.group_stride + i % source.group_rows;
    for (int64_t k = slice.cols.first; k < slice.cols.end(); ++k) {
      *numbers++ = static_cast<float>(source.addend) + load_number(stored, stored_row * to.cols + k, source.dtype);
    }
  }
}

// One arena for all of them.
void upload_vectors(const HostVectors& vectors, Backend& backend, Weights& weights) {
  int64_t arena_bytes = 0;
  for (const auto& entry : vectors) {
    const int64_t bytes = static_cast<int64_t>(entry.second.size() * sizeof(float));
    weights.num_bytes += bytes;
    arena_bytes += bytes + Arena::kAlignment;
  }
  weights.vectors = std::make_unique<Arena>(backend, arena_bytes);
  for (const auto& [vector, numbers] : vectors) {
    const int64_t bytes = static_cast<int64_t>(numbers.size() * sizeof(float));
    void* data = weights.vectors->take(bytes);
    backend.upload(data, numbers.data(), bytes);
    *vector = {static_cast<const float*>(data), static_cast<int64_t>(numbers.size())};
  }
}

// Rows [first, first + num_rows) and some columns of a matrix that is stored as [cols, stored_rows], brought into order in `rows`.
template <class Number>
void turn_rows(std::vector<Number>& rows, const char* stored, const TensorSource& source, int64_t first, int64_t num_rows, Range cols) {
  rows.resize(static_cast<size_t>(num_rows * cols.count));
  for (int64_t k = 0; k < cols.count; ++k) {
    const char* run = stored + ((cols.first + k) * source.stored_rows + first) * static_cast<int64_t>(sizeof(Number));
    for (int64_t r = 0; r < num_rows; ++r) {
      std::memcpy(&rows[static_cast<size_t>(r * cols.count + k)], run + r * static_cast<int64_t>(sizeof(Number)), sizeof(Number));
    }
  }
}

void pack_turned(const TensorSource& source, const PackedWeight& to, int64_t first_row, const char* stored, int64_t first,
                 int64_t num_rows, Range cols, Backend& backend) {
  constexpr int64_t kRowsAtOnce = 256;  // a megabyte for a thousand columns
  std::vector<uint32_t> wide;
  std::vector<uint16_t> half;
  for (int64_t done = 0; done < num_rows; done += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, num_rows - done);
    const void* rows;
    if (source.dtype == DType::float32) {
      turn_rows(wide, stored, source, first + done, count, cols);
      rows = wide.data();
    } else {
      turn_rows(half, stored, source, first + done, count, cols);
      rows = half.data();
    }
    const StoredRows run{to, first_row + done, count, rows, source.dtype, cols.count * dtype_bytes(source.dtype)};
    backend.pack_rows({&run, 1});
  }
}

// Packs a matrix that is stored transposed; of another one adds the rows to `runs`, which somebody packs later.
void pack_matrix(const TensorSource& source, const Destination& to, const char* stored, Backend& backend,
                 std::vector<StoredRows>& runs) {
  const Slice& slice = to.slice;
  const int64_t stride = source.cols * dtype_bytes(source.dtype);
  for (int64_t group = 0; group < source.num_groups; ++group) {
    const int64_t group_row = group * source.group_rows;
    const int64_t begin = std::max(group_row, slice.rows.first);
    const int64_t end = std::min(group_row + source.group_rows, slice.rows.end());
    if (begin >= end) continue;
    const int64_t first = source.first_row + group * source.group_stride + begin - group_row;
    const int64_t first_row = to.first_row + begin - slice.rows.first;
    if (source.transposed) {
      pack_turned(source, *to.matrix, first_row, stored, first, end - begin, slice.cols, backend);
    } else {
      const char* data = stored + first * stride + slice.cols.first * dtype_bytes(source.dtype);
      runs.push_back({*to.matrix, first_row, end - begin, data, source.dtype, stride});
    }
  }
}

// Gives all the matrices of a rank's own spec their shapes. Returns them in the order in which a step reads them.
std::vector<PackedWeight*> shape_matrices(const ModelSpec& spec, DType dtype, Weights& weights) {
  weights.layers.resize(static_cast<size_t>(spec.num_layers));
  weights.encoder_layers.resize(static_cast<size_t>(spec.num_encoder_layers));
  for (LayerWeights& layer : weights.layers) layer.experts.resize(static_cast<size_t>(spec.num_experts));
  for (const int32_t layer : spec.dense_layers) weights.layers[static_cast<size_t>(layer)].experts.clear();
  const int64_t hidden = spec.hidden_size, embedding = embedding_size(spec), query = spec.num_heads * spec.head_dim;
  const int64_t qkv = query + 2 * spec.num_kv_heads * spec.head_dim;
  std::vector<PackedWeight*> matrices;
  const auto plan = [&](PackedWeight& weight, int64_t rows, int64_t cols) {
    weight = {nullptr, dtype, rows, cols};
    matrices.push_back(&weight);
  };
  plan(weights.embedding, spec.vocab_size, embedding);
  if (embedding != hidden) plan(weights.embedding_projection, hidden, embedding);
  if (spec.position_embedding) plan(weights.position_embedding, spec.max_position, hidden);
  for (auto* layers : {&weights.encoder_layers, &weights.layers}) {
    for (LayerWeights& layer : *layers) {
      plan(layer.qkv.weight, qkv, hidden);
      plan(layer.attention_out.weight, hidden, query);
      if (layers == &weights.layers && spec.num_encoder_layers > 0) {
        plan(layer.cross_query.weight, query, hidden);
        plan(layer.cross_kv.weight, 2 * spec.num_kv_heads * spec.head_dim, hidden);
        plan(layer.cross_out.weight, hidden, query);
      }
      if (layer.experts.empty()) {
        plan(layer.mlp_up.weight, (spec.gated_mlp ? 2 : 1) * spec.intermediate_size, hidden);
        plan(layer.mlp_down.weight, hidden, spec.intermediate_size);
        continue;
      }
      plan(layer.router.weight, spec.num_experts, hidden);
      for (ExpertWeights& expert : layer.experts) {
        plan(expert.gate_up, 2 * spec.moe_intermediate_size, hidden);
        plan(expert.down, hidden, spec.moe_intermediate_size);
      }
    }
  }
  if (embedding != hidden) plan(weights.output_projection, embedding, hidden);
  if (!spec.tie_word_embeddings) plan(weights.unembedding.weight, spec.vocab_size, embedding);
  return matrices;
}

int64_t sum_bytes(const std::vector<PackedWeight*>& matrices, const Backend& backend) {
  int64_t total = 0;
  for (const PackedWeight* weight : matrices) {
    const int64_t bytes = backend.packed_bytes(weight->rows, weight->cols, weight->dtype);
    total = checked_add(total, checked_add(bytes, Arena::kAlignment));
  }
  return total;
}

// Tells the matrices whose columns are a part of the whole model's.
void tell_parts(const RankModel& model, Weights& weights) {
  const int64_t heads = model.equal_parts(&Shard::heads), mlp = model.equal_parts(&Shard::mlp), expert = model.equal_parts(&Shard::expert);
  for (auto* layers : {&weights.encoder_layers, &weights.layers}) {
    for (LayerWeights& layer : *layers) {
      layer.attention_out.weight.parts = layer.cross_out.weight.parts = heads;
      layer.mlp_down.weight.parts = mlp;
      for (ExpertWeights& one : layer.experts) one.down.parts = expert;
    }
  }
}

// One arena for all of them.
void allocate_matrices(const RankModel& model, DType dtype, Backend& backend, Weights& weights) {
  const ModelSpec& spec = model.own;
  const std::vector<PackedWeight*> matrices = shape_matrices(spec, dtype, weights);
  weights.num_bytes = sum_bytes(matrices, backend);
  weights.matrices = std::make_unique<Arena>(backend, weights.num_bytes);
  for (PackedWeight* weight : matrices) weight->data = weights.matrices->take(backend.packed_bytes(weight->rows, weight->cols, dtype));
  if (spec.tie_word_embeddings) weights.unembedding.weight = weights.embedding;
  tell_parts(model, weights);
}

}  // namespace

int64_t matrix_bytes(const ModelSpec& own, DType dtype, const Backend& backend) {
  Weights weights;
  return sum_bytes(shape_matrices(own, dtype, weights), backend);
}

Weights load_weights(const RankModel& model, const std::vector<TensorSource>& sources, const std::vector<std::string>& files,
                     DType dtype, Backend& backend, const std::function<void(double)>& progress) {
  const ModelSpec& spec = model.whole;
  Weights weights;
  allocate_matrices(model, dtype, backend, weights);

  std::vector<std::unique_ptr<MappedFile>> mapped;
  for (const std::string& path : files) mapped.push_back(std::make_unique<MappedFile>(path));

  // First every check, then the copying: a broken checkpoint is refused at once.
  int64_t total_bytes = 0;
  std::vector<Destination> destinations;
  std::set<std::tuple<bool, TensorRole, int64_t, int64_t>> filled;
  const auto find = [&](bool encoder, TensorRole role, int64_t layer, int64_t part) {
    auto& layers = encoder ? weights.encoder_layers : weights.layers;
    Destination to = (encoder ? encoder_destination : destination)(model, role, weights, layers[static_cast<size_t>(layer)], part);
    to.slice = slice_of(role, spec, model.shard(), to.rows, to.cols, to.num_parts);
    return to;
  };
  for (const TensorSource& source : sources) {
    const int64_t num_layers = source.encoder ? spec.num_encoder_layers : spec.num_layers;
    check(source.layer < num_layers, "tensor of ", source.encoder ? "encoder " : "", "layer ", source.layer, ": the model has ", num_layers,
          " layers");
    check(static_cast<size_t>(source.file) < files.size(), "tensor of file ", source.file, ": there are ", files.size(), " files");
    const Destination to = find(source.encoder, source.role, source.layer, source.part);
    const std::string name = tensor_name(to, source.role, source.encoder, source.layer, source.part);
    const MappedFile& file = *mapped[static_cast<size_t>(source.file)];
    check(!outside_blocks(source.role) || source.layer == 0, file.path(), ": ", name, ": expected layer 0, found ", source.layer);
    check(source.part < to.num_parts, file.path(), ": ", name, ": expected a part below ", to.num_parts, ", found ", source.part);
    check(filled.emplace(source.encoder, source.role, source.layer, source.part).second, file.path(), ": ", name, ": expected once, found again");
    check(to.matrix != nullptr || to.vector != nullptr, file.path(), ": ", name, ": expected none in this model, found one",
          source.role == TensorRole::unembedding ? ": its embeddings are tied" : "");
    check_source(source, to, name, file);
    total_bytes = checked_add(total_bytes, to.rows * to.cols * dtype_bytes(source.dtype));
    destinations.push_back(to);
  }
  for (const bool encoder : {false, true}) {
    const int64_t num_layers = encoder ? spec.num_encoder_layers : spec.num_layers;
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      for (size_t i = 0; i < kNumRoles; ++i) {
        const TensorRole role = static_cast<TensorRole>(i);
        if (outside_blocks(role) && layer > 0) continue;
        const Destination to = find(encoder, role, layer, 0);
        const bool required = to.matrix != nullptr || (role == TensorRole::relative_bias && to.vector != nullptr);
        for (int64_t part = 0; part < to.num_parts; ++part) {
          check(!required || filled.count({encoder, role, layer, part}) > 0, tensor_name(to, role, encoder, layer, part),
                ": expected in the checkpoint, found nothing");
        }
      }
    }
  }

  // A part of the checkpoint at a time: large, so that no thread waits long for the last task of another; small, because the file's pages
  // are in this process's memory too until they are forgotten.
  constexpr int64_t kPartBytes = 64 << 20;
  std::vector<StoredRows> runs;
  HostVectors vectors;
  size_t first = 0;  // source of the part
  int64_t part_bytes = 0, done_bytes = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const TensorSource& source = sources[i];
    const Destination& to = destinations[i];
    const char* stored = mapped[static_cast<size_t>(source.file)]->data() + source.offset;
    if (to.matrix != nullptr) {
      pack_matrix(source, to, stored, backend, runs);
    } else {
      copy_vector(source, to, stored, vectors);
    }
    weights.num_parameters += to.rows * to.cols;
    part_bytes += to.rows * to.cols * dtype_bytes(source.dtype);
    if (part_bytes < kPartBytes && i + 1 < sources.size()) continue;
    backend.pack_rows({runs.data(), static_cast<int64_t>(runs.size())});
    runs.clear();
    for (; first <= i; ++first) {
      // The rows of a fused tensor belong to several sources; its pages come back from the page cache if they are needed again.
      const TensorSource& packed = sources[first];
      mapped[static_cast<size_t>(packed.file)]->forget(packed.offset, packed.stored_rows * packed.cols * dtype_bytes(packed.dtype));
    }
    done_bytes += std::exchange(part_bytes, 0);
    progress(static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  }
  upload_vectors(vectors, backend, weights);
  return weights;
}

}  // namespace parley
