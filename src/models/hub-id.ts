// The names of models on a hub: org/name or org/name@revision.

/** A model on a hub. */
export interface HubId {
  /** org/name */
  repo: string
  /** a branch, a tag or a commit */
  revision: string
  /** as it was given: the model's id in the API */
  text: string
}

const part = '[A-Za-z0-9_][\\w.-]{0,95}'
const pattern = new RegExp(`^(${part}/${part})(?:@([\\w.-]+(?:/[\\w.-]+)*))?$`)

/** The id that a text spells, or null when it is none (a path such as ./org/name, or a single name). */
export function parseHubId(text: string): HubId | null {
  const match = pattern.exec(text)
  const [, repo, revision = 'main'] = match ?? []
  if (repo === undefined || /\.\.|--/.test(repo) || repo.endsWith('.git')) return null
  // A revision becomes a path below refs/.
  if (revision.length > 200 || revision.split('/').some((name) => name === '.' || name === '..')) return null
  return { repo, revision, text }
}
