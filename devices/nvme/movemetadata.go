package nvme

import (
	"errors"

	"vfiouser/block"
)

// resizeStorage changes the size of the storage of an excluded namespace to that of next. The
// metadata moves along, as it is behind the last block; so a smaller storage that fails to
// become so has lost what is behind that size all the same.
func resizeStorage(b block.Resizer, ns, next *namespace, size int64) error {
	before := b.Size()
	if size < before {
		if err := moveMetadata(ns, next); err != nil {
			return err
		}
		if err := b.Resize(size); err != nil {
			return errors.Join(err, moveMetadata(next, ns))
		}
		return nil
	}
	if err := b.Resize(size); err != nil {
		return err
	}
	if err := moveMetadata(ns, next); err != nil {
		return errors.Join(err, b.Resize(before))
	}
	return nil
}

// moveMetadata moves the metadata of the blocks that both views have from where the one has it
// to where the other one does. All else that the other one has becomes what was never
// written. The storage has room for both.
func moveMetadata(ns, next *namespace) error {
	if ns.protection.metadata == 0 || ns.blocks == next.blocks {
		return nil
	}
	blocks := min(ns.blocks, next.blocks)
	used := int64(ns.metadataBytes(blocks))
	kept, step := ns.bytes(ns.format.metadataBlocks(blocks)), int64(pieceSize)
	from, to := ns.bytes(ns.blocks), ns.bytes(next.blocks)
	s, buf := newStorage(), make([]byte, min(kept, step))
	for done := int64(0); done < kept; {
		n := min(step, kept-done)
		at := done
		if to > from { // from the end, as they may overlap
			at = kept - done - n
		}
		p := buf[:n]
		if err := s.submit(ns, block.Request{Op: block.Read, Offset: from + at, Length: n, Buffers: [][]byte{p}}); err != nil {
			return err
		}
		clear(p[max(0, min(n, used-at)):]) // of blocks that are no more
		if err := s.submit(ns, block.Request{Op: block.Write, Offset: to + at, Length: n, Buffers: [][]byte{p}}); err != nil {
			return err
		}
		done += n
	}
	for _, r := range [][2]int64{{from, to}, {to + kept, next.stored()}} {
		if r[0] >= r[1] {
			continue
		}
		if err := s.submit(ns, block.Request{Op: block.WriteZeroes, Offset: r[0], Length: r[1] - r[0], Deallocate: true}); err != nil {
			return err
		}
	}
	return nil
}
