# frozen_string_literal: true

require "erb"
require "etc"
require "socket"

module Locker
  # A client of one store, which one or more servers serve. Threads may share it.
  class Client
    # The shortest ttl, in seconds. Below 15 s little time is left to stop.
    SHORTEST_TTL = 3.0
    WHICH = %i[lock locks count labels key requestor priority reason].freeze
    private_constant :WHICH

    # A client of the variables that the command line reads, and of LOCKER_TOKEN. Certificates are files.
    def self.from_env(env = ENV)
      get = ->(name) { env[name] unless env[name].to_s.empty? }
      new(get["LOCKER_URI"] || "http://127.0.0.1:8910",
          username: get["LOCKER_USERNAME"], password: get["LOCKER_PASSWORD"], token: get["LOCKER_TOKEN"],
          ca_file: get["LOCKER_CA_CERT"], cert_file: get["LOCKER_CLIENT_CERT"], key_file: get["LOCKER_CLIENT_KEY"])
    end

    # +servers+ is one URL, several separated by commas, or a list. Without +username+ and +token+, a user and password
    # in the URLs are used. +ca_file+: trust only these issuers. +owner+ is shown to others: members of the API's Owner.
    def initialize(servers = "http://127.0.0.1:8910", owner: nil, **access)
      urls = servers.is_a?(String) ? servers.split(",") : servers
      @transport = Transport.new(urls, **access)
      @owner = owner || { person: "#{Etc.getlogin || "somebody"}@#{Socket.gethostname}" }
    end

    def inspect = "#<#{self.class} #{@transport.names}>"

    # Waits until the locks are held. With a block, yields the Hold, and gives the locks back after it; without one,
    # returns the Hold. A block that ends well although its locks were lost raises Lost.
    #
    # +timeout+ and +ttl+ are in seconds. +on_wait+ is called with each Waiting; +on_lost+ from another thread with a
    # Lost, before the lease ends. +lock+, +locks+, +count+ and +labels+ say which locks of the pool; +also+ is a list of
    # hashes with those and +pool+: locks of more pools, all or nothing. The rest: +key+, +requestor+, +priority+,
    # +reason+.
    #
    # Raises TimedOut, Refused, Hopeless; nothing is held then.
    def lock(pool, timeout: nil, on_wait: nil, **options, &block)
      hold = acquire(pool, queue: true, timeout: timeout, on_wait: on_wait, **options)
      block ? hold.use(&block) : hold
    end

    # Takes the locks now; nil, without a call of the block, if others have them. Raises NoAnswer after 3 s without
    # answer.
    def try_lock(pool, **options, &block)
      hold = acquire(pool, queue: false, timeout: nil, on_wait: nil, **options)
      hold && block ? hold.use(&block) : hold
    end

    # Whether this fence belongs to a present holder of the lock. Anything but true means stop.
    def verify(pool, lock, fence) = Hold.held?(@transport, pool, lock, fence)

    # What happened, the newest first. +filters+: lock, claim, who, kind, since, until.
    def history(pool = nil, limit: 100, **filters)
      path = pool ? "/api/v1/pools/#{encode(pool)}/changes" : "/api/v1/changes"
      get(path, limit: limit, order: "newest_first", **filters).fetch("items")
    end

    # A lock with its labels, its metadata and its holders.
    def get_lock(pool, lock) = get("/api/v1/pools/#{encode(pool)}/locks/#{encode(lock)}")

    # Version, store and time of the server.
    def info = get("/api/v1/info")

    private

    def get(path, **query) = Retry.insist(Transport::PATIENCE) { @transport.get(path, **query) }.last

    def encode(text) = ERB::Util.url_encode(text)

    def acquire(pool, queue:, timeout:, on_wait:, ttl: 60, on_lost: nil, also: [], **which)
      raise ArgumentError, "a ttl of #{ttl} s leaves no time to stop: at least #{SHORTEST_TTL} s" if ttl < SHORTEST_TTL

      unknown = which.keys - WHICH
      raise ArgumentError, "unknown options: #{unknown.join(", ")}" unless unknown.empty?

      body = { pool: pool, scope: "lease", ttl: Hold.duration(ttl), confirm: true, queue: queue, owner: @owner }
      body.update(which.compact)
      body[:also] = also unless also.empty?
      Acquire.new(@transport, body, ttl: ttl, timeout: timeout, on_wait: on_wait).run(on_lost)
    end
  end
end
