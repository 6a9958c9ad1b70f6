package link

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vfiouser/fuzz/choice"
	"vfiouser/link/vnet"
)

// FuzzFraming is a peer of a stream: frames, lengths that are none, and pieces of any size. What is
// taken out of the stream is what a walk over all of it finds, and a card gets that in order, each
// frame once, however few it takes at a time.
//
//fuzz:covers link/streamreceive.go
func FuzzFraming(f *testing.F) {
	choice.Corpus(f, 60, 200)
	x := &streamReceiver{}
	x.init(&streamPort{})
	f.Fuzz(func(t *testing.T, program []byte) {
		x.reset()
		x.port.counts.receiveDropped.Store(0)
		x.port.counts.received.Store(0)
		src := choice.FromBytes(program)
		card := &slowCard{src: src}
		x.port.card = card
		stream := compose(src)
		want, short, broken := framesOf(stream)
		var err error
		for len(stream) > 0 && err == nil {
			x.w, x.r = copy(x.buf, x.buf[x.r:x.w]), 0
			if x.w == len(x.buf) {
				t.Fatal("there is no room for the rest of a frame")
			}
			n := min(len(stream), 1+src.Intn(5000), len(x.buf)-x.w)
			if !src.More() {
				n = min(len(stream), len(x.buf)-x.w)
			}
			copy(x.buf[x.w:], stream[:n])
			x.w, stream = x.w+n, stream[n:]
			for n := streamBatch; n == streamBatch && err == nil; {
				n, err = x.cut()
				for x.kept = x.frames[:n]; len(x.kept) > 0; {
					left := len(x.kept)
					if took := x.deliver(); took != left-len(x.kept) {
						t.Fatalf("the card takes %d frames of %d, and %d are left", took, left, len(x.kept))
					}
				}
			}
		}
		got := card.got
		dropped, received := x.port.counts.receiveDropped.Load(), x.port.counts.received.Load()
		if len(got) != len(want) || (err != nil) != broken || dropped != short || received != uint64(len(want)) {
			t.Fatalf("%d frames, %d counted, and %d short ones, %v; want %d and %d, broken: %v", len(got), received, dropped, err, len(want), short, broken)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d of %d bytes is another one", i, len(want[i]))
			}
		}
	})
}

// slowCard keeps what it receives, and has no room once in a while.
type slowCard struct {
	Card
	src *choice.Source
	got [][]byte
}

func (c *slowCard) Receive(_ int, frames []vnet.Frame) int {
	n := len(frames) - c.src.Intn(len(frames)+1)
	for i := range frames[:n] {
		c.got = append(c.got, bytes.Clone(frames[i].Parts[0][:frames[i].Len]))
	}
	return n
}

// compose makes what a peer sends: seldom a length that is none, or half a frame at the end.
func compose(src *choice.Source) (stream []byte) {
	for range 100 {
		if !src.More() {
			break
		}
		length := uint64(src.Intn(200))
		if src.Odds(12) {
			length = src.Edge(vnet.MaxFrame)
		}
		stream = binary.BigEndian.AppendUint32(stream, uint32(length))
		for i := range min(length, 2*vnet.MaxFrame) {
			stream = append(stream, byte(i*7+length))
		}
	}
	return stream[:len(stream)-src.Intn(min(len(stream), 60)+1)]
}

// framesOf takes a whole stream apart: the frames, how many are too short to be one, and whether
// there is a length that is none.
func framesOf(b []byte) (frames [][]byte, short uint64, broken bool) {
	for len(b) >= 4 {
		n := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		if n == 0 || n > 14+8+40+65535 {
			return frames, short, true
		}
		if b = b[4:]; n > len(b) {
			break
		}
		if n < 14 {
			short++
		} else {
			frames = append(frames, b[:n])
		}
		b = b[n:]
	}
	return frames, short, false
}
