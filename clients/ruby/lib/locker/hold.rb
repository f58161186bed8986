# frozen_string_literal: true

module Locker
  # Locks that are held. A thread renews their lease.
  #
  #   0 ---------- ttl/3 ------------ 2/3 ttl ------------------- ttl
  #                renew; again if    told that it is lost        the server may give the locks to others
  #                that fails
  #
  # The server counts from when it receives a renewal, this side from before it was sent, so this side's lease always
  # ends first.
  class Hold
    # How long giving the locks back may take without an answer, in seconds. After that the lease ends by itself.
    GIVE_BACK = 10.0
    # The longest sleep in one piece, in seconds: sleeps do not count the time that the machine is suspended.
    SLICE = 0.5
    # Refusals that say that the claim no longer holds its locks. Others, such as refused credentials, do not say so.
    OVER = %w[ended no_such_claim not_granted wrong_fence superseded_run].freeze
    UNITS = { "ms" => 0.001, "s" => 1, "m" => 60, "h" => 3600, "day" => 86_400, "d" => 86_400 }.freeze
    private_constant :GIVE_BACK, :SLICE, :OVER, :UNITS

    # +id+ is the claim's; +fence+ the number of this grant, larger than that of every earlier grant of these locks;
    # +locks+ a list of [pool, lock]; +renewals+ how many renewals the server has answered.
    attr_reader :id, :fence, :locks, :renewals

    class << self
      # A duration as the API reads it.
      def duration(seconds) = "#{(seconds * 1000).round}ms" # :nodoc:

      # A duration as the API writes it: 1m5s, 4s352ms.
      def seconds(text) # :nodoc:
        text.scan(/(\d+)\s*(ms|s|m|h|day|d)/).sum { |number, unit| number.to_i * UNITS.fetch(unit) }
      end

      # Whether this fence belongs to a present holder of the lock.
      def held?(transport, pool, lock, fence) # :nodoc:
        Retry.insist(Transport::PATIENCE) { transport.get("/api/v1/verify", pool: pool, lock: lock, fence: fence) }
        true
      rescue Conflict => e
        raise unless e.code == "not_held"

        false
      end
    end

    def initialize(transport, claim, run:, ttl:, sent:, on_lost:) # :nodoc:
      @transport = transport
      @run = run
      @ttl = ttl
      @on_lost = on_lost
      @id = claim["id"]
      @fence = claim["fence"]
      @locks = claim["locks"].map { |one| [one["pool"], one["lock"]].freeze }.freeze
      @guard = Mutex.new
      @changed = ConditionVariable.new
      @lost = nil
      @released = false
      @renewals = 0
      count_from(claim, sent)
      Thread.new { watch }
    end

    def inspect = "#<#{self.class} #{locks} fence #{fence}>"

    # The pool of the first lock.
    def pool = locks.first.first

    # The name of the first lock.
    def lock = locks.first.last

    # Why the locks are lost, or nil while they are safely held.
    def lost = @guard.synchronize { @lost }

    # Raises Lost if the locks are lost, as far as is known here. Asks nobody.
    def check
      found = lost
      raise found if found
    end

    # Asks the server whether all locks are still held by this fence.
    def verify = locks.all? { |pool, lock| Hold.held?(@transport, pool, lock, fence) }

    # Gives the locks back. Harmless to repeat. Raises Lost if they were lost before, and NoAnswer if the server does
    # not answer for 10 s: the locks come back with the end of the lease then.
    def release
      return if @guard.synchronize { @released.tap { finish } }

      begin
        path = "/api/v1/claims/#{id}?run=#{@run}"
        Retry.insist(GIVE_BACK) { @transport.send("DELETE", path, patience: GIVE_BACK) }
      rescue Refused => e
        raise unless OVER.include?(e.code)

        @guard.synchronize { @lost ||= Lost.new(e.message) }
      end
      check
    end

    # Runs the block, then gives the locks back. An error of the block is never replaced.
    def use # :nodoc:
      failed = true
      result = yield self
      failed = false
      result
    ensure
      give_back(failed)
    end

    private

    def give_back(failed)
      release
    rescue Lost
      # What the block itself raised says more.
      raise unless failed
    rescue LockerError => e
      warn("locker: the locks could not be given back; the server ends the hold with its lease: #{e.message}")
    end

    # Only under the guard.
    def finish
      @released = true
      @changed.broadcast
    end

    # Counts the lease anew, from just before the request was sent that this claim is the answer to.
    def count_from(claim, sent)
      left = claim["held_for"]
      @ends = sent + [@ttl, left && Hold.seconds(left)].compact.min
      @tell_at = @ends - (@ttl / 3.0)
      @renew_at = sent + (@ttl / 3.0)
      @backoff = Backoff.new(@ttl / 12.0)
    end

    # Starts renewals and tells a loss in time. Requests run in other threads, so none can delay this one.
    def watch
      lost = @guard.synchronize do
        wait_a_while until @released || @lost || (now = Retry.clock) >= @tell_at
        return if @released || @lost

        Lost.new(format("the lease was not renewed in time and ends in %.1f s", [0.0, @ends - now].max))
      end
      lose(lost)
    end

    def wait_a_while
      now = Retry.clock
      if now >= @renew_at
        @renew_at = Float::INFINITY
        Thread.new { renew }
      end
      span = [SLICE, @tell_at - now, @renew_at - now].min
      @changed.wait(@guard, span) if span.positive?
    end

    def renew
      sent = Retry.clock
      path = "/api/v1/claims/#{id}/renew"
      _, claim = @transport.send("POST", path, { run: @run, fence: fence }, patience: @ttl / 6.0)
      @guard.synchronize do
        count_from(claim, sent)
        @renewals += 1
        @changed.broadcast
      end
    rescue Refused => e
      OVER.include?(e.code) ? lose(Lost.new(e.message)) : again(e)
    rescue StandardError => e
      # Whatever it is, only a later renewal can help.
      again(e)
    end

    def again(error)
      @guard.synchronize do
        @renew_at = Retry.clock + @backoff.next
        @changed.broadcast
      end
      warn("locker: the lease could not be renewed, trying again: #{error.message}")
    end

    def lose(lost)
      @guard.synchronize do
        return if @released || @lost

        @lost = lost
        @changed.broadcast
      end
      @on_lost&.call(lost)
    end
  end
end
