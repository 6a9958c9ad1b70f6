package codec

import (
	"errors"
	"slices"
	"testing"
)

func message(id uint16, payload int) []byte {
	h := Header{ID: id, Command: CmdRegionRead, Size: uint32(HeaderSize + payload)}
	return append(h.Append(nil), make([]byte, payload)...)
}

func TestCutterCutsWholeMessagesOnly(t *testing.T) {
	var c Cutter
	all := append(message(1, 4), message(2, 0)...)
	for n := range len(all) + 1 {
		c = Cutter{}
		var ids []uint16
		data := all[:n]
		for {
			h, size, err := c.Cut(data, 20)
			if err != nil {
				t.Fatal(err)
			}
			if size == 0 {
				break
			}
			ids, data = append(ids, h.ID), data[size:]
		}
		want := []uint16{1, 2}[:map[bool]int{n >= 20: 1}[true]+map[bool]int{n >= 36: 1}[true]]
		if !slices.Equal(ids, want) {
			t.Errorf("%d bytes: messages %v, want %v", n, ids, want)
		}
	}
}

func TestCutterRefusesWhatIsOutOfStep(t *testing.T) {
	var c Cutter
	if h, size, err := c.Cut(message(7, 5), HeaderSize+4); !errors.Is(err, ErrSize) || size != 0 || h.ID != 7 {
		t.Errorf("message above the limit: %+v %d %v", h, size, err)
	}
	if _, _, err := c.Cut(Header{Size: 3}.Append(nil), 100); !errors.Is(err, ErrSize) {
		t.Errorf("size below the header: %v", err)
	}
}

// Descriptors belong to the last message that has begun when they come.
func TestCutterFindsTheMessageOfDescriptors(t *testing.T) {
	one, two := message(1, 4), message(2, 4)
	for _, c := range []struct {
		name     string
		segments []int // sizes of what arrives; descriptors 10, 11, … come with it if negative
		want     [2][]int
	}{
		{"none", []int{40}, [2][]int{nil, nil}},
		{"with the first byte", []int{-20, 20}, [2][]int{{10}, nil}},
		{"with the second of two", []int{20, -20}, [2][]int{nil, {10}}},
		{"whole and a byte more", []int{20, -1, 19}, [2][]int{nil, {10}}},
		{"in the middle of the header", []int{5, -15, 20}, [2][]int{{10}, nil}},
		{"twice", []int{-5, -15, -20}, [2][]int{{10, 11}, {12}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var cut Cutter
			all, data := append(slices.Clone(one), two...), []byte(nil)
			got, next, fd := [2][]int{}, 0, 10
			for _, n := range c.segments {
				size := max(n, -n)
				data, all = append(data, all[:size]...), all[size:]
				if n < 0 {
					if refused := cut.Arrived(data, []int{fd}, false, 4); refused != nil {
						t.Fatal("refused", refused)
					}
					fd++
				}
				for {
					_, size, err := cut.Cut(data, 100)
					if err != nil {
						t.Fatal(err)
					}
					if size == 0 {
						break
					}
					fds, flooded := cut.FDs()
					if flooded {
						t.Error("flooded")
					}
					got[next] = slices.Clone(fds)
					next++
					data = data[size:]
				}
			}
			for i := range got {
				if !slices.Equal(got[i], c.want[i]) {
					t.Errorf("message %d has descriptors %v, want %v", i, got[i], c.want[i])
				}
			}
			if rest := cut.Close(); rest != nil {
				t.Errorf("left over: %v", rest)
			}
		})
	}
}

func TestCutterBoundsDescriptors(t *testing.T) {
	var c Cutter
	data := message(1, 4)
	if got := c.Arrived(data[:1], []int{1, 2}, false, 3); got != nil {
		t.Errorf("refused %v within the limit", got)
	}
	if got := c.Arrived(data[:2], []int{3, 4}, false, 3); !slices.Equal(got, []int{1, 2, 3, 4}) {
		t.Errorf("refused %v, want all of the message's", got)
	}
	if got := c.Arrived(data[:3], []int{5}, false, 3); !slices.Equal(got, []int{5}) {
		t.Errorf("refused %v, want what comes after too many", got)
	}
	data = append(data, message(2, 0)...)
	if got := c.Arrived(data, []int{6}, false, 3); got != nil {
		t.Errorf("refused %v of the next message", got)
	}
	if _, size, err := c.Cut(data, 100); size != 20 || err != nil {
		t.Fatal(size, err)
	}
	if fds, flooded := c.FDs(); !flooded || len(fds) != 0 {
		t.Errorf("descriptors %v, flooded %v", fds, flooded)
	}
	if got := c.Close(); !slices.Equal(got, []int{6}) {
		t.Errorf("left over %v, want 6", got)
	}
}

func TestMissing(t *testing.T) {
	m := message(1, 4)
	for n, want := range map[int]int{0: HeaderSize, 15: HeaderSize, 16: 4, 19: 1, 20: 0} {
		if got := Missing(m[:n]); got != want {
			t.Errorf("%d bytes: %d missing, want %d", n, got, want)
		}
	}
}
