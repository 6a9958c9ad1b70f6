package hostile

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"
)

var seedFlag = flag.Uint64("seed", 1, "seed of the random attacks")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// random is a generator of its own for one attack, and says how to get it again.
func (a *attack) random() *rand.Rand {
	a.Logf("-seed %d", *seedFlag)
	return rand.New(rand.NewPCG(*seedFlag, 0))
}

// garbage fills p.
func garbage(r *rand.Rand, p []byte) {
	var word [8]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(word[:], r.Uint64())
		p = p[copy(p, word[:]):]
	}
}
