package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// to takes the device through states of migration, each with a command that must succeed.
func (r *run) to(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	for _, name := range s.args {
		state, ok := symbols["STATE_"+name]
		if !ok {
			return fmt.Errorf("there is no state %s", name)
		}
		b := binary.NativeEndian.AppendUint32(nil, 16)
		b = binary.NativeEndian.AppendUint32(b, uint32(feature["SET"]|feature["MIG_DEVICE_STATE"]))
		b = binary.NativeEndian.AppendUint32(b, uint32(state))
		b = binary.NativeEndian.AppendUint32(b, 0)
		if _, err := r.ask(c, "DEVICE_FEATURE", b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// keep gives bytes a name; $NAME.size is their number.
func (sc scope) keep(name string, b []byte) {
	sc.blobs[name] = b
	sc.vars[name+".size"] = uint64(len(b))
}

// load is "load NAME PIECE": it writes kept bytes to the migration stream, PIECE at a time.
func (r *run) load(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(s.args) != 2 {
		return errors.New("wants a name and a size")
	}
	piece, err := r.number(s.args[1])
	if err != nil || piece == 0 {
		return fmt.Errorf("pieces of %s: %w", s.args[1], err)
	}
	for part := range slices.Chunk(r.blobs[s.args[0]], int(piece)) {
		req := binary.NativeEndian.AppendUint32(nil, uint32(8+len(part)))
		req = binary.NativeEndian.AppendUint32(req, uint32(len(part)))
		if _, err := r.ask(c, "MIG_DATA_WRITE", append(req, part...)); err != nil {
			return err
		}
	}
	return nil
}

// same is "same NAME NAME": what was kept is equal.
func (r *run) same(s step) error {
	if len(s.args) != 2 {
		return errors.New("wants two names")
	}
	a, b := r.blobs[s.args[0]], r.blobs[s.args[1]]
	if len(a) == 0 || !bytes.Equal(a, b) {
		return fmt.Errorf("%s has %d bytes, %s has %d, and they differ, or there are none", s.args[0], len(a), s.args[1], len(b))
	}
	return nil
}

// save is "save NAME": it reads the migration stream to its end and keeps it.
func (r *run) save(s step) error {
	c, err := r.conn(s)
	if err != nil {
		return err
	}
	if len(s.args) != 1 {
		return errors.New("wants a name")
	}
	const piece = 4096
	req := binary.NativeEndian.AppendUint32(nil, 8+piece)
	req = binary.NativeEndian.AppendUint32(req, piece)
	for {
		b, err := r.ask(c, "MIG_DATA_READ", req)
		if err != nil {
			return err
		}
		size, _, ok := takeNumber(b[min(len(b), 4):], 4)
		if !ok || size != uint64(len(b)-8) || size > piece {
			return fmt.Errorf("a reply of %d bytes says that it has %d", len(b), size)
		}
		r.scope().keep(s.args[0], append(r.blobs[s.args[0]], b[8:]...))
		if size < piece {
			return nil
		}
	}
}
