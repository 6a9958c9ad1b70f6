package block_test

import (
	"fmt"

	"vfiouser/block"
)

// waiter waits for one request at a time.
type waiter chan error

func (w waiter) CompleteBlock(_ *block.Request, err error) { w <- err }

func Example() {
	disk, err := block.Open("mem:1G")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer disk.Close()

	w := make(waiter, 1)
	do := func(r *block.Request) error {
		r.Completer = w
		done, err := disk.Submit(r)
		if !done {
			err = <-w
		}
		return err
	}
	data := []byte("hello, block")
	fmt.Println(do(&block.Request{Op: block.Write, Offset: 4096, Length: 12, Buffers: [][]byte{data[:5], data[5:]}}))
	got := make([]byte, 12)
	fmt.Println(do(&block.Request{Op: block.Read, Offset: 4096, Length: 12, Buffers: [][]byte{got}}), string(got))
	fmt.Println(do(&block.Request{Op: block.Discard, Offset: disk.Size(), Length: 512}))
	// Output:
	// <nil>
	// <nil> hello, block
	// block: range outside the backend
}

func ExampleOpen_error() {
	_, err := block.Open("mem:1GB")
	fmt.Println(err)
	// Output:
	// block: mem:1GB: bad size "1GB": unknown suffix "GB"; write a whole number of bytes, or one with K, M, G or T (powers of 1,024), for example 1G
}
