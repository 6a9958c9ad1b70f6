package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"

	"golang.org/x/sys/unix"

	"vfiouser/pci"
)

// The stream of MIG_DATA_READ and MIG_DATA_WRITE is a sequence of records, little-endian:
//
//	0  kind      2 bytes
//	2  0         2
//	4  length    4  of what follows the header, at most maxRecord
//	8  sequence  4  counts the records from 0
//	12 checksum  4  CRC-32C of the 12 bytes before and of what follows
//
// The first record is recordIdentity, the last one recordEnd. In between there is the
// device's own data, in any number of records, and once each what the engine owns.
type recordKind uint16

const (
	recordIdentity   recordKind = 1 // see identity
	recordDevice     recordKind = 2 // what PreCopy and SaveState write
	recordConfig     recordKind = 3 // pci.Space.Snapshot
	recordInterrupts recordKind = 4 // irq.Set.Save, and the MSI-X table if it is the engine's
	recordEnd        recordKind = 5 // nothing
)

const (
	recordHeader = 16
	maxRecord    = 64 << 10
	identitySize = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errStream   = fmt.Errorf("bad migration data: %w", unix.EINVAL)
	errIdentity = fmt.Errorf("migration data of another device: %w", unix.EINVAL)
	// errAbandoned is what a device sees whose stream the client does not want any more.
	errAbandoned = fmt.Errorf("engine: migration is abandoned: %w", unix.ECANCELED)
)

// identity is what source and destination must have in common, but for version.
type identity struct {
	version                              uint32 // Description.StateVersion
	vendor, device, subVendor, subDevice uint16
	shape                                uint64 // regions, interrupts and configuration space
}

const (
	identityMagic  = "vfu-mig\x00"
	identityFormat = 1
)

// identityOf reads a description that is complete. Its configuration space may have been
// written to.
func identityOf(ep *Endpoint) identity {
	d := &ep.desc
	header, _ := pci.DecodeHeader(d.Config.Snapshot()) // no space is too short
	id := identity{
		version: d.StateVersion, vendor: header.Vendor, device: header.Device,
		subVendor: header.SubVendor, subDevice: header.SubDevice,
	}
	h := fnv.New64a()
	b := binary.LittleEndian.AppendUint64(nil, d.Config.Layout())
	for _, n := range d.IRQs {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for i := range ep.regions {
		b = binary.LittleEndian.AppendUint64(b, ep.regions[i].Size)
	}
	_, _ = h.Write(b) // cannot fail
	id.shape = h.Sum64()
	return id
}

func (id identity) append(b []byte) []byte {
	b = append(b, identityMagic...)
	b = binary.LittleEndian.AppendUint32(b, identityFormat)
	b = binary.LittleEndian.AppendUint32(b, id.version)
	for _, v := range []uint16{id.vendor, id.device, id.subVendor, id.subDevice} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return binary.LittleEndian.AppendUint64(b, id.shape)
}

// accept checks the identity of a source and returns the version of its state.
func (id identity) accept(b []byte) (version uint32, err error) {
	if len(b) != identitySize || string(b[:8]) != identityMagic {
		return 0, fmt.Errorf("%w: it does not begin as it should", errStream)
	}
	if f := binary.LittleEndian.Uint32(b[8:]); f != identityFormat {
		return 0, fmt.Errorf("%w: format %d, this is %d", errStream, f, identityFormat)
	}
	version = binary.LittleEndian.Uint32(b[12:])
	var got [4]uint16
	for i := range got {
		got[i] = binary.LittleEndian.Uint16(b[16+2*i:])
	}
	want := [4]uint16{id.vendor, id.device, id.subVendor, id.subDevice}
	switch {
	case got != want:
		return 0, fmt.Errorf("%w: ids %04x, this is %04x", errIdentity, got, want)
	case binary.LittleEndian.Uint64(b[24:]) != id.shape:
		return 0, fmt.Errorf("%w: its regions, interrupts or capabilities differ", errIdentity)
	case version > id.version:
		return 0, fmt.Errorf("%w: state of version %d, this device knows %d", errIdentity, version, id.version)
	}
	return version, nil
}

// recordWriter makes records of what it is given; as an io.Writer it takes the device's
// data. Whoever takes it sees each byte once: what is handed to out is reused.
type recordWriter struct {
	out      func(record []byte) error
	sequence uint32
	buf      []byte // header and data of a device record that is not full
	err      error
}

func (w *recordWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && w.err == nil {
		if len(w.buf) == 0 {
			w.buf = append(w.buf, make([]byte, recordHeader)...)
		}
		k := min(len(p), recordHeader+maxRecord-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p, n = p[k:], n+k
		if len(w.buf) == recordHeader+maxRecord {
			w.flush()
		}
	}
	return n, w.err
}

// flush sends the device's data that has not filled a record.
func (w *recordWriter) flush() {
	if len(w.buf) > 0 {
		w.send(recordDevice)
	}
}

// put sends a record of the engine's own.
func (w *recordWriter) put(kind recordKind, data []byte) {
	w.flush()
	w.buf = append(append(w.buf, make([]byte, recordHeader)...), data...)
	w.send(kind)
}

func (w *recordWriter) send(kind recordKind) {
	h := w.buf[:recordHeader]
	binary.LittleEndian.PutUint16(h[0:], uint16(kind))
	binary.LittleEndian.PutUint16(h[2:], 0)
	binary.LittleEndian.PutUint32(h[4:], uint32(len(w.buf)-recordHeader))
	binary.LittleEndian.PutUint32(h[8:], w.sequence)
	sum := crc32.Update(crc32.Checksum(h[:12], castagnoli), castagnoli, w.buf[recordHeader:])
	binary.LittleEndian.PutUint32(h[12:], sum)
	w.sequence++
	if w.err == nil {
		w.err = w.out(w.buf)
	}
	w.buf = w.buf[:0]
}

// recordReader takes records apart; as an io.Reader it gives the device's data, of which
// every byte has been checked. Engine records are kept for the end.
type recordReader struct {
	in                 io.Reader
	sequence           uint32
	buf                [maxRecord]byte
	data               []byte // the device's, not read yet
	config, interrupts []byte
	ended              bool
	err                error // sticky
}

// next reads a record; its data is valid until the next one.
func (r *recordReader) next() (recordKind, []byte, error) {
	var h [recordHeader]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return 0, nil, r.cut(err)
	}
	length := binary.LittleEndian.Uint32(h[4:])
	if length > maxRecord {
		return 0, nil, fmt.Errorf("%w: a record of %d bytes", errStream, length)
	}
	data := r.buf[:length]
	if _, err := io.ReadFull(r.in, data); err != nil {
		return 0, nil, r.cut(err)
	}
	sum := crc32.Update(crc32.Checksum(h[:12], castagnoli), castagnoli, data)
	switch {
	case sum != binary.LittleEndian.Uint32(h[12:]):
		return 0, nil, fmt.Errorf("%w: wrong checksum in record %d", errStream, r.sequence)
	case binary.LittleEndian.Uint32(h[8:]) != r.sequence:
		return 0, nil, fmt.Errorf("%w: record %d in place of %d", errStream, binary.LittleEndian.Uint32(h[8:]), r.sequence)
	}
	r.sequence++
	return recordKind(binary.LittleEndian.Uint16(h[0:])), data, nil
}

// cut is the error of a stream that ends too early.
func (r *recordReader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends before it is complete", errStream)
	}
	return err
}

// begin reads the first record.
func (r *recordReader) begin(id identity) (version uint32, err error) {
	kind, data, err := r.next()
	if err == nil && kind != recordIdentity {
		err = fmt.Errorf("%w: it begins with record %d", errStream, kind)
	}
	if err != nil {
		return 0, err
	}
	return id.accept(data)
}

// Read gives the device's data, up to io.EOF where the stream is complete.
func (r *recordReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 && r.err == nil && !r.ended {
		r.err = r.advance()
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case r.err != nil:
		return 0, r.err
	case len(r.data) == 0:
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// advance takes the next record.
func (r *recordReader) advance() error {
	kind, data, err := r.next()
	if err != nil {
		return err
	}
	switch {
	case kind == recordDevice:
		r.data = data
	case kind == recordConfig && r.config == nil:
		r.config = append([]byte{}, data...)
	case kind == recordInterrupts && r.interrupts == nil:
		r.interrupts = append([]byte{}, data...)
	case kind == recordEnd && len(data) == 0 && r.config != nil && r.interrupts != nil:
		r.ended = true
	default:
		return fmt.Errorf("%w: record of kind %d where it cannot be", errStream, kind)
	}
	return nil
}

// finish reads what is left when the device has read all that it wants: none of it may be
// the device's.
func (r *recordReader) finish() error {
	var b [1]byte
	switch n, err := r.Read(b[:]); {
	case n > 0:
		return fmt.Errorf("%w: more than the device can read", errStream)
	case err == io.EOF:
		return nil
	default:
		return err
	}
}
