package nvme

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"vfiouser/block"
)

// A stream has the state as one chunk, and then for each private namespace its contents:
// chunks of an offset and data, in ascending order, what is missing being zeroes, and an
// empty one at the end. A chunk has its size in four bytes before it.
const (
	maxStateSize = 8 << 20
	// maxStateObjects bounds the queues and completions that a state says it has. A drive
	// has at most maxInflight completions waiting for each of MaxQueues queues.
	maxStateObjects = 1 << 16
	contentsOffset  = 8
	contentsSize    = 1 << 20 // bytes of data in one chunk
)

func writeChunk(w io.Writer, p []byte) error {
	var size [4]byte
	binary.LittleEndian.PutUint32(size[:], uint32(len(p)))
	if _, err := w.Write(size[:]); err != nil {
		return err
	}
	_, err := w.Write(p)
	return err
}

func readChunk(r io.Reader, limit int) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, cutShort(err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if uint64(n) > uint64(limit) {
		return nil, stateError("chunk of %d bytes", n)
	}
	// What is claimed need not come: the buffer grows with what does.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) != int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, cutShort(err)
	}
	return b, nil
}

func cutShort(err error) error { return fmt.Errorf("%w: stream is cut: %w", ErrState, err) }

// saveContents writes what is not zero.
func (m *mover) saveContents(w io.Writer, ns *namespace) error {
	size := ns.stored()
	zeroes := make([]byte, min(contentsSize, size))
	buf := make([]byte, contentsOffset+len(zeroes))
	for off := int64(0); off < size; off += contentsSize {
		if err := m.h.s.Context().Err(); err != nil {
			return err // zeroes are not written, so no Write tells
		}
		data := buf[contentsOffset:][:min(contentsSize, size-off)]
		st := m.data.submit(ns, block.Request{Op: block.Read, Offset: off, Length: int64(len(data)), Buffers: [][]byte{data}})
		if !st.OK() {
			return fmt.Errorf("nvme: namespace %d at %d: %v", ns.id, off, st)
		}
		if bytes.Equal(data, zeroes[:len(data)]) {
			continue
		}
		binary.LittleEndian.PutUint64(buf, uint64(off))
		if err := writeChunk(w, buf[:contentsOffset+len(data)]); err != nil {
			return err
		}
	}
	return writeChunk(w, nil)
}

// loadContents replaces the contents of a namespace.
func (m *mover) loadContents(r io.Reader, ns *namespace) error {
	size := uint64(ns.stored())
	submit := func(op block.Op, off, n uint64, data ...[]byte) error {
		st := m.data.submit(ns, block.Request{Op: op, Offset: int64(off), Length: int64(n), Buffers: data})
		if !st.OK() {
			return fmt.Errorf("nvme: namespace %d at %d: %v", ns.id, off, st)
		}
		return nil
	}
	if err := submit(block.WriteZeroes, 0, size); err != nil {
		return err
	}
	for next := uint64(0); ; {
		b, err := readChunk(r, contentsOffset+contentsSize)
		if err != nil || len(b) == 0 {
			return err
		}
		if len(b) <= contentsOffset {
			return stateError("contents of %d bytes", len(b))
		}
		off, data := binary.LittleEndian.Uint64(b), b[contentsOffset:]
		if off < next || off > size || uint64(len(data)) > size-off {
			return stateError("contents of %d bytes at %d", len(data), off)
		}
		if err := submit(block.Write, off, uint64(len(data)), data); err != nil {
			return err
		}
		next = off + uint64(len(data))
	}
}
