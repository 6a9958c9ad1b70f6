package bench

import (
	"fmt"

	"vfiouser/codec"
)

// mapEcho is between an exchange of DMA_MAP and one of DMA_UNMAP, bytes.
var mapEcho = echo{
	request: codec.HeaderSize + (codec.DMAMapSize+codec.DMAUnmapSize)/2,
	reply:   codec.HeaderSize + codec.DMAUnmapSize/2,
	depth:   1,
}

// regionCases are DMA_MAP and DMA_UNMAP in turn, each an operation, of a session that has
// mapped others; with its own there are as many as the name says. The limit is an exchange of
// as many bytes.
func regionCases() (cases []Case) {
	for _, n := range tableSizes {
		cases = append(cases, Case{
			Name: fmt.Sprintf("regions/map-unmap/regions=%d", n), Quick: n == 256, Full: n == 16,
			Limit: mapEcho.limit(),
			Setup: func(env *Env) (Subject, error) {
				fd, err := spawn(env, "device")
				if err != nil {
					return Subject{}, err
				}
				return regionSubject(fd, n)
			},
		})
	}
	return cases
}

func regionSubject(fd, regions int) (Subject, error) {
	if err := negotiate(fd); err != nil {
		return Subject{}, err
	}
	if err := mapRegions(fd, regions-1); err != nil {
		return Subject{}, err
	}
	between := uint64(regions/2)*2*regionSize + regionSize
	dmaUnmap := codec.DMAUnmap{ArgSz: codec.DMAUnmapSize, Addr: between, Size: regionSize}
	requests := [2][]byte{
		mapRequest(nil, between),
		dmaUnmap.Append(codec.Header{Command: codec.CmdDMAUnmap, Size: codec.HeaderSize + codec.DMAUnmapSize}.Append(nil)),
	}
	replies := [2][]byte{make([]byte, codec.HeaderSize), make([]byte, codec.HeaderSize+codec.DMAUnmapSize)}
	next := 0
	run := repeat(func() error {
		i := next
		next ^= 1
		return exchange(fd, requests[i], replies[i])
	})
	return Subject{Run: run}, run(2)
}

// mapRegions maps regions that are reached by message, a region apart.
func mapRegions(fd, regions int) error {
	const together = 64 // requests
	for at := 0; at < regions; at += together {
		n := min(together, regions-at)
		var requests []byte
		for i := range n {
			requests = mapRequest(requests, uint64(at+i)*2*regionSize)
		}
		if err := exchange(fd, requests, make([]byte, n*codec.HeaderSize)); err != nil {
			return err
		}
	}
	return nil
}

// mapRequest appends a request to map a region.
func mapRequest(dst []byte, at uint64) []byte {
	dmaMap := codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: codec.DMAFlagRead | codec.DMAFlagWrite, Addr: at, Size: regionSize}
	return dmaMap.Append(codec.Header{Command: codec.CmdDMAMap, Size: codec.HeaderSize + codec.DMAMapSize}.Append(dst))
}
