# frozen_string_literal: true

# What can go wrong, as types. No text contains credentials.
module Locker
  # Any error of this library.
  class LockerError < StandardError; end

  # No usable answer: whether the request took effect is unknown. Asking again is safe and may help.
  class NoAnswer < LockerError; end

  # No server has ever answered, and what is wrong does not pass by itself, such as an untrusted certificate.
  class Hopeless < NoAnswer; end

  # The time for waiting is over. Nothing is held. +waiting+ is the last news about the wait, or nil.
  class TimedOut < LockerError
    attr_reader :waiting

    def initialize(text, waiting = nil)
      super(text)
      @waiting = waiting
    end
  end

  # The locks are lost, or will be before they can be renewed. Stop what needs them.
  class Lost < LockerError; end

  # The server understood the request and refused it. +code+ is the stable word, +status+ the HTTP status.
  class Refused < LockerError
    attr_reader :code, :status, :problems, :claim

    def initialize(body, status)
      @code = body["code"].to_s
      @status = status
      @problems = body["problems"] || []
      @claim = body["claim"]
      super("#{body["error"]} (#{@code})")
    end

    # The error for an answer that is a refusal: by its code, else by the status that the code belongs to.
    def self.of(body, status)
      kind = body["code"] == "ended" ? Ended : BY_STATUS.fetch(status, Refused)
      kind.new(body, status)
    end
  end

  # The request can never succeed as it is: a bad name, more locks than the pool has, a wrong ttl.
  class BadRequest < Refused; end

  # The server refuses these credentials, or wants some.
  class Denied < Refused; end

  # No such pool, lock or claim.
  class NotFound < Refused; end

  # The request does not fit what the server knows: another claim has this id, another fence is current.
  class Conflict < Refused; end

  # The claim has ended. claim["how"] says how.
  class Ended < Conflict; end

  BY_STATUS = {
    400 => BadRequest, 401 => Denied, 403 => Denied, 404 => NotFound, 405 => BadRequest, 409 => Conflict,
    410 => Conflict, 413 => BadRequest, 421 => Conflict, 422 => BadRequest
  }.freeze
  private_constant :BY_STATUS
end
