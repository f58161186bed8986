# frozen_string_literal: true

require "securerandom"

module Locker
  # News about a wait. +position+ is 1 at the head of the queue. +holders+ have locks that could serve the claim (at
  # most 10 of +holder_count+), +ahead+ are the waiters directly ahead, nearest first (at most 5); both as in the API.
  # +code+ is waiting, self_wait or deadlock, and +text+ the same in words.
  Waiting = Struct.new(:position, :holders, :holder_count, :ahead, :code, :text, keyword_init: true) do
    def self.of(body) # :nodoc:
      queue = body.dig("claim", "queue") || {}
      holders = body["holders"] || []
      new(position: queue["position"], holders: holders, holder_count: body["holder_count"] || holders.size,
          ahead: queue["ahead"] || [], code: body["code"], text: body["error"])
    end
  end

  # One wait for locks, from its first request on. The id of the claim and the run are chosen once, so every message can
  # be repeated: a lost answer never takes two locks.
  class Acquire # :nodoc:
    # How long the server is asked to hold one request, in seconds: below the idle timeout of common proxies.
    WAIT = 25.0
    # The longest pause between two attempts, in seconds: well below the 20 s for which a waiter counts as listening.
    LONGEST_PAUSE = 10.0
    # How long a try-lock, or a wait whose time is over, still waits for an answer, in seconds.
    TRY = 3.0
    # How long taking a claim back may take, in seconds.
    CANCEL = 5.0
    WITHDRAWN = %w[not_granted wrong_fence ended].freeze

    def initialize(transport, body, ttl:, timeout:, on_wait:)
      @transport = transport
      @id = SecureRandom.hex(20)
      @run = SecureRandom.hex(16)
      @body = body.merge(run: @run)
      @ttl = ttl
      @on_wait = on_wait
      limit = body[:queue] ? timeout : TRY
      @ends = limit && (Retry.monotonic + limit)
      @last = nil
      @backoff = Backoff.new(LONGEST_PAUSE)
    end

    # Asks until the claim is held; nil if this is a try-lock and others hold it. In every other case the claim is taken
    # back.
    def run(on_lost)
      settled = false
      claim, sent = ask
      settled = true
      claim && Hold.new(@transport, claim, run: @run, ttl: @ttl, sent: sent, on_lost: on_lost)
    rescue BadRequest, NotFound
      settled = true
      raise
    ensure
      # Also when a signal or another thread ends the wait.
      cancel unless settled
    end

    private

    def ask
      # The first request does not wait, so that people see at once who is ahead of them.
      span = 0.0
      loop do
        asked = Retry.monotonic
        status, answer = put(span)
        return nil if status == 423 && answer["code"] == "locked"

        held = status == 423 ? waits(answer, asked, span) : status && confirm(answer)
        return held if held

        span = [WAIT, left].compact.min
      end
    end

    # The status and the answer; nil if there is none.
    def put(span)
      body = span.positive? && @body[:queue] ? @body.merge(wait: Hold.duration(span)) : @body
      @transport.send("PUT", "/api/v1/claims/#{@id}", body, patience: patience(span))
    rescue NoAnswer => e
      pause(@backoff.next, e)
      nil
    end

    def waits(answer, asked, span)
      @last = Waiting.of(answer)
      @on_wait&.call(@last)
      if span.zero? || (answer["parked"] && Retry.monotonic - asked >= [0.1, span].min)
        @backoff = Backoff.new(LONGEST_PAUSE)
        pause(0)
      else
        pause(@backoff.next)
      end
      nil
    end

    # Confirms a grant. nil: the server has withdrawn it in the meantime; ask again.
    def confirm(claim)
      @backoff = Backoff.new(LONGEST_PAUSE)
      begin
        sent = Retry.clock
        path = "/api/v1/claims/#{@id}/confirm"
        [@transport.send("POST", path, { run: @run, fence: claim["fence"] }, patience: patience(0)).last, sent]
      rescue NoAnswer => e
        pause(@backoff.next, e)
        retry
      rescue Refused => e
        raise unless WITHDRAWN.include?(e.code)

        pause(@backoff.next)
        nil
      end
    end

    def left = @ends && [0.0, @ends - Retry.monotonic].max

    def patience(span) = [Transport::PATIENCE + span, @ends && (left + TRY)].compact.min

    # Sleeps, but not past the time limit, which ends the wait.
    def pause(span, unanswered = nil)
      raise unanswered if unanswered.is_a?(Hopeless)

      sleep([span, left].compact.min)
      return unless left&.zero?
      raise unanswered if unanswered

      raise TimedOut.new("the time for waiting is over: #{@last ? @last.text : "no news"}", @last)
    end

    def cancel
      Retry.insist(CANCEL) { @transport.send("DELETE", "/api/v1/claims/#{@id}?run=#{@run}", patience: CANCEL) }
    rescue NoAnswer, Refused
      # Without an answer, the server ends the claim when its deadlines pass. A refusal: nothing of ours is left.
    end
  end
  private_constant :Acquire
end
