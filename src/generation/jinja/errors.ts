// What can go wrong in a template.

/** The template cannot be read, or an expression of it fails; the message is what Jinja or Python says of it. */
export class TemplateError extends Error {}

/** The template uses more than its budget allows. */
export class BudgetError extends TemplateError {}
