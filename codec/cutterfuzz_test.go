package codec

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzCutter: in whatever pieces a stream comes, the messages are the same bytes as before, and
// every descriptor turns up exactly once: with the last message that had begun when it came, or
// refused because that one has too many, or at the end.
//
//fuzz:covers codec/cutter.go
func FuzzCutter(f *testing.F) {
	choice.Fuzz(f, 60, 300, runCutter)
}

const (
	cutterLimit = 64 // bytes of a message
	cutterFDs   = 3  // descriptors of a message
)

// sent is what a peer sends, taken apart by a walk over all of it.
type sent struct {
	stream []byte
	starts []int // of the messages, whole or not; what is no message is the last
}

func (s *sent) compose(src *choice.Source) {
	for range 1 + src.Intn(12) {
		h := Header{ID: src.Uint16(), Command: CmdRegionRead, Size: uint32(HeaderSize + src.Intn(cutterLimit-HeaderSize+1)), Flags: Flags(src.Intn(2))}
		payload := src.Bytes(int(h.Size) - HeaderSize)
		switch src.Intn(32) {
		case 30:
			h.Size = uint32(src.Edge(cutterLimit))
		case 31:
			h.Flags = 2
		}
		s.stream = append(h.Append(s.stream), payload...)
	}
	for at := 0; at < len(s.stream); at += s.size(at) {
		s.starts = append(s.starts, at)
		if s.size(at) == 0 {
			break
		}
	}
}

// size is that of the message at a place, 0 if there is none.
func (s *sent) size(at int) int {
	if len(s.stream)-at < 16 {
		return 0
	}
	size, flags := binary.NativeEndian.Uint32(s.stream[at+4:]), s.stream[at+8:at+12]
	if size < 16 || binary.NativeEndian.Uint32(flags)&15 > 1 {
		return 0
	}
	return int(size)
}

// begun is the number of the last message of which a byte is among the first n.
func (s *sent) begun(n int) int {
	k, _ := slices.BinarySearch(s.starts, n)
	return k - 1
}

func runCutter(t *testing.T, src *choice.Source) {
	t.Helper()
	var (
		c        Cutter
		s        sent
		received int // bytes of the stream
		done     int // messages that were cut
		fd       int
		out      bool // of step
	)
	s.compose(src)
	fds, flooded := make([][]int, len(s.starts)), make([]bool, len(s.starts))
	for received < len(s.stream) && !out && src.More() {
		received += 1 + src.Intn(min(len(s.stream)-received, 100))
		data := s.stream[s.starts[done]:received]
		if src.Bool() {
			came, lost := make([]int, src.Intn(cutterFDs+2)), src.Odds(16)
			for i := range came {
				came[i], fd = fd, fd+1
			}
			k := s.begun(received)
			all := append(fds[k], came...)
			flooded[k] = flooded[k] || lost || len(all) > cutterFDs
			refused := c.Arrived(data, came, lost, cutterFDs)
			if fds[k] = all; flooded[k] {
				fds[k] = nil
				if !slices.Equal(refused, all) {
					t.Fatalf("refused %v, want %v", refused, all)
				}
			} else if refused != nil {
				t.Fatalf("refused %v of %v", refused, all)
			}
		}
		for ; ; done++ {
			at := received
			if done < len(s.starts) {
				at = s.starts[done]
			}
			data, size := s.stream[at:received], s.size(at)
			missing := HeaderSize
			if len(data) >= HeaderSize && size > 0 {
				missing = max(size-len(data), 0)
			}
			if got := Missing(data); got != missing {
				t.Fatalf("%d bytes are missing of %d, want %d", got, size, missing)
			}
			h, got, err := c.Cut(data, cutterLimit)
			if out = len(data) >= HeaderSize && (size == 0 || size > cutterLimit); (err != nil) != out || out && got != 0 {
				t.Fatalf("message %d: %d bytes, %v; out of step: %v", done, got, err, out)
			}
			if whole := !out && len(data) >= HeaderSize && size <= len(data); !whole {
				if got != 0 {
					t.Fatalf("message %d of %d bytes is cut from %d", done, size, len(data))
				}
				break
			}
			if got != size || h.Size != uint32(size) || !bytes.Equal(h.Append(nil), data[:HeaderSize]) || c.Messages() != uint64(done+1) {
				t.Fatalf("message %d of %d bytes, want %d: %+v", c.Messages(), got, size, h)
			}
			gotFDs, gotFlooded := c.FDs()
			if !slices.Equal(gotFDs, fds[done]) || gotFlooded != flooded[done] {
				t.Fatalf("message %d has descriptors %v, flooded %v; want %v, %v", done, gotFDs, gotFlooded, fds[done], flooded[done])
			}
		}
	}
	if rest := c.Close(); !slices.Equal(rest, slices.Concat(fds[done:]...)) {
		t.Fatalf("left over are %v, want %v", rest, fds[done:])
	}
}
