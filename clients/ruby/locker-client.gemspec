# frozen_string_literal: true

Gem::Specification.new do |spec|
  spec.name = "locker-client"
  spec.version = "0.2.0"
  spec.summary = "Client of Locker: locks for CI that cannot get stuck and cannot be granted twice"
  spec.authors = ["The Locker authors"]
  spec.license = "Apache-2.0"
  spec.required_ruby_version = ">= 3.0"
  spec.files = Dir["lib/**/*.rb"] + ["README.md"]
  spec.metadata = { "rubygems_mfa_required" => "true" }
end
