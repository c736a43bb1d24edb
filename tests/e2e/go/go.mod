// The Go side of the programs in tests/e2e.
module github.com/minikafka/minikafka/tests/e2e/go

go 1.22

require github.com/minikafka/minikafka/clients/go v0.0.0

require (
	github.com/klauspost/compress v1.18.0 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
)

replace github.com/minikafka/minikafka/clients/go => ../../../clients/go
