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
