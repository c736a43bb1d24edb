module github.com/minikafka/minikafka/clients/go

go 1.22

// klauspost/compress: the Zstandard codec that Go projects agree on (franz-go, containerd, Prometheus use it), pure Go with
// assembly where it helps. v1.18.0 is its newest release that still builds with Go 1.22.
//
// pierrec/lz4: klauspost/compress has no LZ4 block encoder (its s2 package converts LZ4 blocks and writes none). pierrec's is
// maintained, has a plain block API (CompressBlock, UncompressBlock), and is what franz-go and sarama use.
require (
	github.com/klauspost/compress v1.18.0
	github.com/pierrec/lz4/v4 v4.1.33
)

require go.uber.org/goleak v1.3.0
