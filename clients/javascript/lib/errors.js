// What can go wrong, as types. No text contains credentials. index.d.ts says what each means.

export class LockerError extends Error {
  get name() {
    return this.constructor.name;
  }
}
export class NoAnswer extends LockerError {}
export class Hopeless extends NoAnswer {}
export class TimedOut extends LockerError {
  constructor(text, waiting) {
    super(text);
    this.waiting = waiting;
  }
}
export class Lost extends LockerError {}
export class Refused extends LockerError {
  constructor(body, status) {
    super(`${body.error} (${body.code})`);
    this.code = String(body.code);
    this.status = status;
    this.problems = body.problems ?? [];
    this.claim = body.claim;
  }
}
export class BadRequest extends Refused {}
export class Denied extends Refused {}
export class NotFound extends Refused {}
export class Conflict extends Refused {}
export class Ended extends Conflict {}
