# frozen_string_literal: true

module Locker
  # Pauses that double from 1 s and have full jitter, so that a thousand clients do not return at once.
  class Backoff # :nodoc:
    def initialize(longest)
      @longest = longest
      @next = [1.0, longest].min
    end

    def next
      pause = rand * @next
      @next = [@next * 2, @longest].min
      pause
    end
  end

  module Retry # :nodoc:
    module_function

    def monotonic = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    # Seconds of a clock that also counts while the machine sleeps, where there is one.
    def clock
      Process.clock_gettime(defined?(Process::CLOCK_BOOTTIME) ? Process::CLOCK_BOOTTIME : Process::CLOCK_MONOTONIC)
    end

    # Repeats a block while there is no answer, for at most this many seconds.
    def insist(limit)
      ends = monotonic + limit
      backoff = Backoff.new(1.0)
      begin
        yield
      rescue NoAnswer => e
        pause = backoff.next
        raise if e.is_a?(Hopeless) || monotonic + pause >= ends

        sleep(pause)
        retry
      end
    end
  end
  private_constant :Backoff, :Retry
end
