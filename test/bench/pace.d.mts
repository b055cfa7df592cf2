export class Pace {
  add(amount: number): void
  rate(units: number): number
}
