package nvme

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// prpWalker turns the PRP entries of a command into runs of contiguous addresses
// (Base 1.4, 4.3). Its memory is used again, and holds copies: what the guest writes
// into a list after it was read has no effect.
type prpWalker struct {
	runs []run
	list [pageSize]byte
}

// run is a range of guest addresses.
type run struct{ iova, n uint64 }

// listReader reads a piece of a PRP list, which lies in one page.
type listReader interface {
	readList(iova uint64, p []byte) spec.Status
}

const prpSize = 8

// walk fills runs for n bytes, n > 0. It reads no more entries than n bytes need, so
// a list that leads to itself ends.
func (w *prpWalker) walk(prp1, prp2, n uint64, from listReader) spec.Status {
	w.runs = w.runs[:0]
	if prp1&3 != 0 {
		return spec.InvalidPRPOffset | spec.StatusDNR
	}
	first := min(n, pageSize-prp1%pageSize)
	w.add(prp1, first)
	n -= first
	if n == 0 {
		return spec.Success
	}
	if n <= pageSize {
		return w.page(prp2, n)
	}
	if prp2%prpSize != 0 {
		return spec.InvalidPRPOffset | spec.StatusDNR
	}
	for at := prp2; ; {
		entries := int((n + pageSize - 1) / pageSize)
		room := int((pageSize - at%pageSize) / prpSize)
		chained := entries > room
		entries = min(entries, room)
		list := w.list[:entries*prpSize]
		if st := from.readList(at, list); !st.OK() {
			return st
		}
		if chained { // the last entry of the page leads to the next list
			entries--
		}
		for i := range entries {
			k := min(n, pageSize)
			if st := w.page(binary.LittleEndian.Uint64(list[i*prpSize:]), k); !st.OK() {
				return st
			}
			n -= k
		}
		if !chained {
			return spec.Success
		}
		// Lists after the first begin on a page, so each of them makes progress.
		at = binary.LittleEndian.Uint64(list[entries*prpSize:])
		if at%pageSize != 0 {
			return spec.InvalidPRPOffset | spec.StatusDNR
		}
	}
}

// page adds a page that is not the first: its offset must be zero.
func (w *prpWalker) page(iova, n uint64) spec.Status {
	if iova%pageSize != 0 {
		return spec.InvalidPRPOffset | spec.StatusDNR
	}
	w.add(iova, n)
	return spec.Success
}

func (w *prpWalker) add(iova, n uint64) {
	if k := len(w.runs); k > 0 && w.runs[k-1].iova+w.runs[k-1].n == iova {
		w.runs[k-1].n += n
		return
	}
	w.runs = append(w.runs, run{iova, n})
}
