package codec_test

import (
	"errors"
	"fmt"
	"syscall"

	"vfiouser/codec"
)

// A client writes four bytes to BAR 0; the server takes the message apart.
func Example() {
	write := codec.RegionAccess{Offset: 0x1000, Region: 0, Count: 4, Data: []byte{1, 0, 0, 0}}
	message := codec.Header{ID: 1, Command: codec.CmdRegionWrite}.Append(nil)
	message = write.Append(message)
	codec.Header{ID: 1, Command: codec.CmdRegionWrite, Size: uint32(len(message))}.Put(message)

	h, err := codec.DecodeHeader(message)
	if err != nil {
		fmt.Println(err)
		return
	}
	var got codec.RegionAccess
	if err := got.DecodeWriteRequest(message[codec.HeaderSize:h.Size]); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v: %d bytes to region %d at %#x: % x\n", h.Command, got.Count, got.Region, got.Offset, got.Data)
	// Output: REGION_WRITE: 4 bytes to region 0 at 0x1000: 01 00 00 00
}

// A refusal says what was wrong and which errno goes into the reply.
func ExampleError() {
	var m codec.DMAMap
	err := m.Decode(make([]byte, codec.DMAMapSize))
	var errno syscall.Errno
	fmt.Println(err)
	fmt.Println(errors.Is(err, codec.ErrSize), errors.As(err, &errno), errno == syscall.EINVAL)
	// Output:
	// DMA_MAP: sizes contradict each other: argsz is smaller than 32
	// true true true
}

// A message reads as one line, in a log or in a trace.
func ExampleMessage() {
	write := codec.RegionAccess{Offset: 0x1000, Region: codec.RegionBAR0, Count: 4, Data: []byte{1, 0, 0, 0}}
	fmt.Println(codec.Message{
		Header:  codec.Header{ID: 12, Command: codec.CmdRegionWrite},
		Payload: write.Append(nil),
	})
	fmt.Println(codec.Message{
		Header: codec.Header{ID: 12, Command: codec.CmdRegionWrite, Flags: codec.FlagReply | codec.FlagError, Errno: 22},
	})
	// Output:
	// REGION_WRITE #12 BAR0+0x1000 4 bytes 01 00 00 00
	// REGION_WRITE #12 error EINVAL
}
