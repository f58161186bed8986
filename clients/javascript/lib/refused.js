import { BadRequest, Conflict, Denied, Ended, NotFound, Refused } from "./errors.js";

const BY_STATUS = {
  400: BadRequest, 401: Denied, 403: Denied, 404: NotFound, 405: BadRequest, 409: Conflict, 410: Conflict,
  413: BadRequest, 421: Conflict, 422: BadRequest,
};

/** The error for an answer that is a refusal: by its code, else by the status that the code belongs to. */
export function refused(body, status) {
  const Kind = body.code === "ended" ? Ended : (BY_STATUS[status] ?? Refused);
  return new Kind(body, status);
}
