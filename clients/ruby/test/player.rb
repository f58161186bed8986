# frozen_string_literal: true

# Does with the client what each line of the input says; see ../../README.md.

require "json"
require "locker-client"

# How long the player waits for something that must happen, in seconds.
PATIENCE = 80

# An error of the block itself.
class Mine < StandardError; end

# A lock that is asked for in the background, and what became of it.
class Task
  attr_accessor :hold, :error, :ended, :left
  attr_reader :news, :lost, :thread

  def initialize
    @news = []
    @lost = []
  end

  def start
    self.ended = false
    @thread = Thread.new do
      yield
    rescue StandardError => e
      self.error = e
    ensure
      self.ended = true
    end
  end

  def result
    await("an end of the wait") { ended }
    raise error if error

    hold ? Player.shown(hold) : { none: true }
  end
end

def await(what)
  (PATIENCE * 100).times do
    return if yield

    sleep 0.01
  end
  raise "not within #{PATIENCE} s: #{what}"
end

# The steps, one method each.
class Player
  def initialize
    @tasks = {}
  end

  def self.shown(hold) = { locks: hold.locks, fence: hold.fence, id: hold.id }

  def open(step)
    access = step.except(:do, :servers)
    @client = Locker::Client.new(step[:servers], owner: { person: "player" }, **access)
    {}
  end

  def lock(step)
    task = @tasks[step[:as]] = Task.new
    told = { on_wait: ->(news) { task.news << news }, on_lost: ->(lost) { task.lost << lost } }
    task.start { task.hold = @client.lock(step[:pool], **told, **step[:with]) }
    {}
  end

  def try(step)
    task = @tasks[step[:as]] = Task.new
    task.start { task.hold = @client.try_lock(step[:pool], **step[:with]) }
    {}
  end

  def await_end(step) = task(step).result

  def waits(step)
    await("news") { task(step).news.any? }
    news = task(step).news.first
    holder = news.holders.first&.dig("owner", "person")
    { position: news.position, holder: holder, holder_count: news.holder_count, code: news.code }
  end

  def release(step)
    task(step).hold.release
    {}
  end

  def release_later(step)
    task = task(step)
    task.start { task.hold.release }
    {}
  end

  def released(step) = task(step).result

  def lost(step)
    task = task(step)
    await("a loss") { task.lost.any? }
    raise "told twice, or not the same" unless task.lost == [task.hold.lost]

    { text: task.lost.first.message }
  end

  def renewed(step)
    hold = task(step).hold
    before = hold.renewals
    await("a renewal") { hold.renewals > before || hold.lost }
    { lost: hold.lost&.message, renewals: hold.renewals }
  end

  def block(step)
    taken = nil
    @client.lock(step[:pool], **step[:with]) do |hold|
      taken = hold
      raise Mine, "of the block" if step[:fail]
    end
    Player.shown(taken)
  end

  def block_later(step)
    task = @tasks[step[:as]] = Task.new
    task.start do
      @client.lock(step[:pool], **step[:with]) do |hold|
        task.hold = hold
        task.ended = true
        await("leave") { task.left }
      end
    end
    {}
  end

  def end_block(step)
    task(step).left = true
    task(step).thread.join(PATIENCE)
    task(step).result
  end

  def verify(step) = { held: @client.verify(step[:pool], step[:lock], step[:fence]) }

  def verify_hold(step) = { held: task(step).hold.verify }

  def history(step) = { kinds: @client.history(step[:pool], **step[:filters]).map { |entry| entry["kind"] } }

  def get_lock(step) = { lock: @client.get_lock(step[:pool], step[:lock]) }

  private

  def task(step) = @tasks.fetch(step[:as])
end

def failure(error)
  answer = { error: error.class.name.split("::").last, text: error.message }
  answer.update(code: error.code, status: error.status) if error.is_a?(Locker::Refused)
  answer
end

player = Player.new
$stdin.each_line do |line|
  step = JSON.parse(line, symbolize_names: true)
  answer =
    begin
      player.public_send(step[:do] == "await" ? "await_end" : step[:do], step)
    rescue Locker::LockerError, Mine => e
      failure(e)
    end
  $stdout.puts(JSON.generate(answer))
  $stdout.flush
end
