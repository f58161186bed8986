# frozen_string_literal: true

require_relative "locker/errors"
require_relative "locker/retry"
require_relative "locker/transport"
require_relative "locker/hold"
require_relative "locker/acquire"
require_relative "locker/client"

# Locks for CI that cannot get stuck and cannot be granted twice. See README.md beside the gem.
#
#   Locker.lock("staging", ttl: 60) { |hold| deploy(hold.fence) }
module Locker
  @guard = Mutex.new

  class << self
    # As Client#lock, with the client of the environment.
    def lock(pool, **options, &block) = client.lock(pool, **options, &block)

    # As Client#try_lock, with the client of the environment.
    def try_lock(pool, **options, &block) = client.try_lock(pool, **options, &block)

    # As Client#verify, with the client of the environment.
    def verify(pool, lock, fence) = client.verify(pool, lock, fence)

    private

    def client
      @guard.synchronize { @client ||= Client.from_env }
    end
  end
end
