# frozen_string_literal: true

require "json"
require "net/http"
require "openssl"
require "uri"

module Locker
  # One request and what its answer means.
  #
  # An answer with a +code+ of the server is final. After a network error, 408, 429, 5xx or an answer of something else
  # (a proxy whose server is away), the outcome is unknown and the caller asks again. Redirects are never followed, so
  # credentials go to the named servers only.
  class Transport # :nodoc:
    # How long one request may take, in addition to the wait that it asks the server for, in seconds.
    PATIENCE = 15.0
    # How long connecting may take, in seconds.
    CONNECT = 5.0
    # Statuses below 500 that something between client and server answers while the server is away.
    PASSING = [404, 408, 410, 425, 429].freeze
    METHODS = {
      "GET" => Net::HTTP::Get, "PUT" => Net::HTTP::Put, "POST" => Net::HTTP::Post, "DELETE" => Net::HTTP::Delete
    }.freeze
    TROUBLE = [
      SystemCallError, IOError, SocketError, Timeout::Error, OpenSSL::SSL::SSLError, Net::ProtocolError,
      Net::HTTPBadResponse, Net::HTTPHeaderSyntaxError, NoAnswer
    ].freeze

    # A server, without its credentials in any text.
    Server = Struct.new(:tls, :host, :port, :path, :name, :userinfo, :header, :hopeless) do
      def self.parse(text)
        url = parts(text.strip.sub(%r{/+\z}, ""))
        tls = url.scheme == "https"
        userinfo = url.userinfo&.split(":", 2)&.map { |part| URI.decode_www_form_component(part.gsub("+", "%2B")) }
        name = "#{url.scheme}://#{url.host}:#{url.port}#{url.path}"
        new(tls, url.hostname, url.port, url.path, name, userinfo, nil, false)
      end

      def self.parts(text)
        url = URI.parse(text)
        return url if url.is_a?(URI::HTTP) && url.host && !url.host.empty? && !url.query && !url.fragment

        raise LockerError, "the server's address must be http:// or https://, a host and perhaps a port and a path"
      rescue URI::Error
        # Not the text of that error: it contains the address, and the address may contain a password.
        raise LockerError, "the server's address is not a URL such as http://HOST:8910", cause: nil
      end
    end

    # An answer that does not come from a locker server.
    class Foreign < NoAnswer
      def initialize(status)
        super("#{(300..399).cover?(status) ? "a redirect" : "an answer"} (status #{status}) that does not come from " \
              "a locker server")
        @lasts = (status < 500 && !PASSING.include?(status)) || status == 501
      end

      def lasts? = @lasts
    end

    def initialize(urls, username: nil, password: nil, token: nil, ca_file: nil, cert_file: nil, key_file: nil)
      @servers = urls.map { |url| Server.parse(url) }
      raise LockerError, "no server is named" if @servers.empty?

      identify(username, password, token)
      @trust = trust(ca_file, cert_file, key_file)
      @current = 0
      @met = false
      @guard = Mutex.new
    end

    def inspect = "#<#{self.class} #{names}>"
    alias to_s inspect

    # The servers' addresses, without credentials.
    def names = @servers.map(&:name).join(", ")

    # A GET. Members that are nil are left out.
    def get(path, **query)
      query = query.compact
      query.empty? ? send("GET", path) : send("GET", "#{path}?#{URI.encode_www_form(query).gsub("+", "%20")}")
    end

    # Sends one request. Returns status and body of any 2xx, and of a 423 that says who waits for what; raises in all
    # other cases. A server that cannot be connected to has not seen the request, so the next one is asked at once.
    def send(method, path, body = nil, patience: PATIENCE)
      (@servers.size - 1).downto(0) do |left|
        index = @guard.synchronize { @current }
        server = @servers[index]
        connected = false
        begin
          return exchange(server, method, path, body, patience) { connected = true }
        rescue *TROUBLE => e
          server.hopeless = !@met && lasts?(e)
          @guard.synchronize { @current = (index + 1) % @servers.size if @current == index }
          raise trouble(server, e), cause: nil if left.zero? || (connected && !server.hopeless)
        end
      end
    end

    private

    def exchange(server, method, path, body, patience)
      http = connection(server, patience)
      http.start do
        yield
        request = METHODS.fetch(method).new(server.path + path, headers(server, body))
        request.body = JSON.generate(body) if body
        response = http.request(request)
        judge(response.code.to_i, response.body)
      end
    end

    def connection(server, patience)
      # The second nil: no proxy, not even that of the environment.
      http = Net::HTTP.new(server.host, server.port, nil)
      http.open_timeout = http.ssl_timeout = [CONNECT, patience].min
      http.read_timeout = http.write_timeout = patience
      # The caller repeats; Net::HTTP must not do so by itself.
      http.max_retries = 0
      return http unless server.tls

      http.use_ssl = true
      @trust.each { |setting, value| http.public_send("#{setting}=", value) }
      http
    end

    def headers(server, body)
      headers = { "User-Agent" => "locker-ruby", "Accept" => "application/json" }
      headers["Authorization"] = server.header if server.header
      headers["Content-Type"] = "application/json" if body
      headers
    end

    def judge(status, text)
      parsed = parse(text)
      raise Foreign, status unless parsed.is_a?(Hash) && (status < 300 || parsed.key?("code"))

      @met = true
      return [status, parsed] if status < 300 || (status == 423 && parsed.key?("parked"))
      raise NoAnswer, "#{parsed["error"]} (#{parsed["code"]})" if [408, 429].include?(status) || status >= 500

      raise Refused.of(parsed, status)
    end

    def parse(text)
      JSON.parse(text.to_s)
    rescue JSON::ParserError
      nil
    end

    def trouble(server, error)
      kind = @servers.all?(&:hopeless) ? Hopeless : NoAnswer
      kind.new("no answer from the locker server at #{server.name}: #{in_words(error)}")
    end

    def in_words(error)
      case error
      when OpenSSL::SSL::SSLError
        untrusted?(error) ? "its certificate is not trusted (#{error.message}): give ca_file" : error.message
      when EOFError then "the connection was closed before the answer"
      when Net::HTTPBadResponse, Net::HTTPHeaderSyntaxError then "it does not answer in HTTP: does it expect https://?"
      else error.message
      end
    end

    def untrusted?(error) = error.is_a?(OpenSSL::SSL::SSLError) && error.message.include?("certificate verify failed")

    # Whether asking again does not help: somebody has to change something first.
    def lasts?(error)
      return error.lasts? if error.is_a?(Foreign)

      untrusted?(error) || error.is_a?(Net::HTTPBadResponse)
    end

    def identify(username, password, token)
      if token && (username || password)
        raise LockerError, "give either a token, or a user name and a password"
      elsif token && token !~ /\A[!-~]+\z/
        raise LockerError, "the token has characters that no token has: look for spaces and newlines around it"
      elsif !token && !username && ![0, @servers.size].include?(@servers.count(&:userinfo))
        raise LockerError, "only some of the servers have a user and password in their URL: write them into each"
      end

      @servers.each do |server|
        pair = username ? [username, password] : server.userinfo
        server.header = token ? "Bearer #{token}" : pair && "Basic #{[pair.join(":")].pack("m0")}"
        server.userinfo = nil
      end
    end

    def trust(ca_file, cert_file, key_file)
      found = { verify_mode: OpenSSL::SSL::VERIFY_PEER }
      found[:ca_file] = ca_file if ca_file
      if cert_file
        chain = OpenSSL::X509::Certificate.load_file(cert_file)
        found.update(cert: chain.first, extra_chain_cert: chain.drop(1))
        found[:key] = OpenSSL::PKey.read(File.read(key_file || cert_file))
      end
      found
    end
  end
  private_constant :Transport
end
