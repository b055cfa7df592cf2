// The JSON of a stream's values, which differ in little more than a word: what they share is written once.

/** A value that is JSON already. */
export class Json {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

export function toJson(value: object): string {
  return value instanceof Json ? value.text : JSON.stringify(value)
}

/** No text of a server or a model stands for itself beside this one. */
const hole = '\u0000hole\u0000'

/** The JSON of objects that are the same but for one text. */
class Template {
  readonly #before: string
  readonly #after: string

  /** @param make the object with this text, which it holds once */
  constructor(make: (text: string) => object) {
    const [before = '', after = ''] = JSON.stringify(make(hole)).split(JSON.stringify(hole))
    this.#before = before
    this.#after = after
  }

  fill(text: string): Json {
    return new Json(this.#before + JSON.stringify(text) + this.#after)
  }
}

/** Chunks of a stream that tell nothing but text, one template for each choice. */
export class TextChunks {
  readonly #make: (index: number, text: string) => object
  readonly #templates = new Map<number, Template>()

  /** @param make the chunk of a choice, with the text in it once */
  constructor(make: (index: number, text: string) => object) {
    this.#make = make
  }

  of(index: number, text: string): Json {
    let template = this.#templates.get(index)
    if (!template) {
      template = new Template((hole) => this.#make(index, hole))
      this.#templates.set(index, template)
    }
    return template.fill(text)
  }
}
