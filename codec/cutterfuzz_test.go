package codec

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzCutter: in whatever pieces a stream comes, the messages are the same bytes as before,
// every descriptor turns up exactly once (with a message, refused, or at the end), and it
// turns up with the last message that had begun when it came.
//
//fuzz:covers codec/cutter.go
func FuzzCutter(f *testing.F) {
	stream := slices.Concat(message(1, 4), message(2, 0), message(3, 100), Header{Size: 3}.Append(nil))
	f.Add(stream, []byte{20, 0x81, 15, 0xff, 0x90, 7})
	f.Add(stream, bytes.Repeat([]byte{0x81}, 40))
	f.Add(stream, []byte{0x80 | 0x7f, 0x80 | 0x7f})
	f.Fuzz(func(t *testing.T, stream, pieces []byte) {
		const limit, maxFDs = 64, 3
		var c Cutter
		var data []byte
		want := make(map[int]uint64) // by descriptor: the number of its message
		seen := make(map[int]bool)
		see := func(fds []int) {
			for _, fd := range fds {
				if _, ok := want[fd]; !ok || seen[fd] {
					t.Fatalf("descriptor %d turns up twice, or never came", fd)
				}
				seen[fd] = true
			}
		}
		cut := 0
		for rest := stream; len(rest) > 0 && len(pieces) > 0; pieces = pieces[1:] {
			n := min(int(pieces[0]&0x7f)+1, len(rest))
			data, rest = append(data, rest[:n]...), rest[n:]
			if pieces[0]&0x80 != 0 {
				fd := len(want)
				want[fd] = c.Messages() + countBegun(data)
				see(c.Arrived(data, []int{fd}, false, maxFDs))
			}
			for {
				h, size, err := c.Cut(data, limit)
				if err != nil {
					see(c.Close())
					rest = nil
					break
				}
				if size == 0 {
					break
				}
				if size < HeaderSize || size > limit || int(h.Size) != size || !bytes.Equal(data[:size], stream[cut:cut+size]) {
					t.Fatalf("message %d is not what was sent", c.Messages())
				}
				cut += size
				data = data[size:]
				fds, flooded := c.FDs()
				if len(fds) > maxFDs || flooded && len(fds) > 0 {
					t.Fatalf("%d descriptors, flooded %v", len(fds), flooded)
				}
				for _, fd := range fds {
					if want[fd] != c.Messages() {
						t.Errorf("descriptor %d comes with message %d, want %d", fd, c.Messages(), want[fd])
					}
				}
				see(fds)
			}
		}
		see(c.Close())
		if len(seen) != len(want) {
			t.Errorf("%d descriptors of %d turned up", len(seen), len(want))
		}
	})
}

// countBegun counts the messages in b, whole or not; what is no message counts as the last.
func countBegun(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	h, err := DecodeHeader(b)
	if err != nil || int64(h.Size) >= int64(len(b)) {
		return 1
	}
	return 1 + countBegun(b[h.Size:])
}
