// The cache of Hugging Face's tools, so that they find what Parley downloads and Parley finds what they have downloaded:
//
//   models--org--name/refs/main                    the commit of a revision
//   models--org--name/snapshots/<commit>/<file>    a link to its blob
//   models--org--name/blobs/<hash>                 the file itself; <hash>.incomplete while it is not whole
//   .locks/models--org--name/<hash>.lock           held (flock) by whoever downloads the blob

import { randomUUID } from 'node:crypto'
import { access, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { shardsOf, weightsOf } from './hub-files.js'
import type { HubId } from './hub-id.js'

export class HubCache {
  readonly folder: string
  readonly #locks: string

  /** @param root the folder of all models; it need not exist */
  constructor(root: string, repo: string) {
    const name = `models--${repo.replace('/', '--')}`
    this.folder = join(root, name)
    this.#locks = join(root, '.locks', name)
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  blob(hash: string): string {
    return join(this.folder, 'blobs', hash)
  }

  lock(hash: string): string {
    return join(this.#locks, `${hash}.lock`)
  }

  async makeFolders(commit: string): Promise<void> {
    for (const folder of [this.snapshot(commit), join(this.folder, 'blobs'), this.#locks])
      await mkdir(folder, { recursive: true })
  }

  /** Puts a whole blob into a snapshot. */
  async link(commit: string, name: string, hash: string): Promise<void> {
    const link = join(this.snapshot(commit), name)
    const made = `${link}.${randomUUID()}`
    try {
      await symlink(join('..', '..', 'blobs', hash), made)
    } catch (error) {
      // A file system without links, such as exFAT: the file itself stands in the snapshot, as huggingface_hub does it.
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes((error as NodeJS.ErrnoException).code ?? ''))
        throw error
      await rename(this.blob(hash), link)
      return
    }
    await rename(made, link).catch(async (error) => {
      await rm(made, { force: true })
      throw error
    })
  }

  /** Says which commit a revision is; only once its snapshot is whole, so that an older one serves until then. */
  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return
    const file = join(this.folder, 'refs', revision)
    await mkdir(dirname(file), { recursive: true })
    const made = join(this.folder, `ref.${randomUUID()}`)
    await writeFile(made, commit)
    await rename(made, file)
  }

  /** The snapshot of a revision as it lies here, and what it lacks; null when there is none. */
  async find(id: HubId): Promise<{ folder: string; missing: string | null } | null> {
    const isCommit = /^[0-9a-f]{40}$/.test(id.revision)
    const commit = isCommit
      ? id.revision
      : await readFile(join(this.folder, 'refs', id.revision), 'utf8').catch(() => '')
    if (!/^[0-9a-f]{40}$/.test(commit.trim())) return null
    const folder = this.snapshot(commit.trim())
    if (!(await exists(folder))) return null
    return { folder, missing: await missingFrom(folder) }
  }
}

/** The first file that a snapshot lacks, of those that every model has. */
async function missingFrom(folder: string): Promise<string | null> {
  if (!(await exists(join(folder, 'config.json')))) return 'config.json'
  const here: string[] = []
  for (const name of [
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
  ])
    if (await exists(join(folder, name))) here.push(name)
  if (here.length === 0) return 'weights'
  const { name, isIndex } = weightsOf(folder, here)
  if (!isIndex) return null
  for (const shard of shardsOf(join(folder, name), await readFile(join(folder, name), 'utf8')))
    if (!(await exists(join(folder, shard)))) return shard
  return null
}

/** Whether a path leads to something; a link to nothing is nothing. */
export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
