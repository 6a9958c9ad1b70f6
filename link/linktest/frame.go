package linktest

import "vfiouser/link/vnet"

// Frame returns f in the form in which it is handed over. It uses f's memory.
func (f Frame) Frame() vnet.Frame {
	return vnet.Frame{Header: f.Header, Parts: [][]byte{f.Data}, Len: len(f.Data)}
}

// Frames returns complete frames, each in one part, that use the memory of data.
func Frames(data ...[]byte) []vnet.Frame {
	frames := make([]vnet.Frame, len(data))
	for i, d := range data {
		frames[i] = Frame{Data: d}.Frame()
	}
	return frames
}

// MAC is an Ethernet address.
type MAC [6]byte

// Broadcast is everybody's address.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Station is the address of number n, which is locally administered.
func Station(n uint32) MAC { return MAC{0x02, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

// Ethernet makes a frame of the type that is left to experiments (0x88b5).
func Ethernet(to, from MAC, payload []byte) []byte {
	f := append(append(append([]byte(nil), to[:]...), from[:]...), 0x88, 0xb5)
	return append(f, payload...)
}
