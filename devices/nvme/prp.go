package nvme

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

const prpSize = 8

// prps walks PRP entries (Base 1.4, 4.3). It reads no more of them than n bytes need,
// so a list that leads to itself ends.
func (w *dataWalker) prps(prp1, prp2, n uint64, from listReader) spec.Status {
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
func (w *dataWalker) page(iova, n uint64) spec.Status {
	if iova%pageSize != 0 {
		return spec.InvalidPRPOffset | spec.StatusDNR
	}
	w.add(iova, n)
	return spec.Success
}
