package choice

import "testing"

// maxInput bounds what one execution does, in bytes of its input.
const maxInput = 2000

// Corpus adds the empty input and those of n seeds, of size bytes, to a target that reads its
// input as choices: most of its random programs get deep.
func Corpus(f *testing.F, n, size int) {
	f.Helper()
	f.Add([]byte{})
	for seed := range uint64(n) {
		f.Add(FromSeed(seed, 0).Bytes(size))
	}
}

// Fuzz has the fuzzer write what Programs takes from seeds. It begins with a Corpus; of an input
// the first 2,000 bytes count.
func Fuzz(f *testing.F, n, size int, run func(t *testing.T, s *Source)) {
	f.Helper()
	Corpus(f, n, size)
	f.Fuzz(func(t *testing.T, input []byte) { run(t, FromBytes(input[:min(len(input), maxInput)])) })
}
