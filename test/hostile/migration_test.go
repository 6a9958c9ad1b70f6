package hostile

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func deviceFeature(argsz int, flags codec.FeatureFlags, data []byte) []byte {
	return (&codec.Feature{ArgSz: uint32(argsz), Flags: flags, Data: data}).Append(nil)
}

func migState(to codec.MigState) []byte {
	return deviceFeature(16, codec.FeatureMigDeviceState|codec.FeatureSet, to.Append(nil))
}

func migRead(n uint32) []byte {
	return (&codec.MigData{ArgSz: codec.MigDataSize + n, Size: n}).AppendHead(nil)
}

func migWrite(data []byte) []byte {
	return (&codec.MigData{ArgSz: uint32(codec.MigDataSize + len(data)), Size: uint32(len(data)), Data: data}).Append(nil)
}

func startLogging(page uint64, ranges ...uint64) []byte {
	start := codec.DMALogging{PageSize: page, Count: uint32(len(ranges) / 2)}
	for r := range slices.Chunk(ranges, 2) {
		start.Ranges = codec.AppendIOVARange(start.Ranges, codec.IOVARange{IOVA: r[0], Length: r[1]})
	}
	data := start.Append(nil)
	return deviceFeature(codec.FeatureSize+len(data), codec.FeatureDMALoggingStart|codec.FeatureSet, data)
}

func reportLogging(iova, length, page uint64) []byte {
	report := codec.DMALoggingReport{IOVA: iova, Length: length, PageSize: page}
	return deviceFeature(1<<20+64, codec.FeatureDMALoggingReport|codec.FeatureGet, report.AppendHead(nil))
}

// saved is the whole state of the victim.
func (c *raw) saved() (stream []byte) {
	c.a.Helper()
	c.call(codec.CmdDeviceFeature, migState(codec.MigStopCopy))
	for {
		part := c.call(codec.CmdMigDataRead, migRead(1<<20-64))[codec.MigDataSize:]
		if stream = append(stream, part...); len(part) < 1<<20-64 {
			return stream
		}
	}
}

// migRecords takes a stream apart (engine/migstream.go): each record with its header.
func migRecords(stream []byte) (records [][]byte) {
	for len(stream) > 0 {
		n := 16 + binary.LittleEndian.Uint32(stream[4:])
		records = append(records, stream[:n])
		stream = stream[n:]
	}
	return records
}

// seal gives a record the checksum that belongs to it.
func seal(record []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(record[:12], table), table, record[16:])
	binary.LittleEndian.PutUint32(record[12:], sum)
}

func TestMigrationOfHostileClients(t *testing.T) {
	l := newLab(t, nvme.Trap)
	states := []codec.MigState{codec.MigStop, codec.MigRunning, codec.MigStopCopy, codec.MigResuming, codec.MigError, codec.MigRunningP2P, codec.MigPreCopy, codec.MigPreCopyP2P, 8}
	l.attack(t, "commands in any order", func(a *attack) {
		g, _ := a.started(64)
		rng := rand.New(rand.NewPCG(1, 1))
		for range 3_000 {
			switch rng.IntN(6) {
			case 0, 1:
				g.post(codec.CmdDeviceFeature, migState(states[rng.IntN(len(states))]))
			case 2:
				g.post(codec.CmdMigDataRead, migRead(rng.Uint32N(200_000)))
			case 3:
				g.post(codec.CmdMigDataWrite, migWrite(make([]byte, rng.IntN(5_000))))
			case 4:
				g.post(codec.CmdRegionRead, (&codec.RegionAccess{Count: 8}).AppendHead(nil))
			default:
				if rng.IntN(10) == 0 {
					g.post(codec.CmdReset, nil)
				}
			}
		}
		g.call(codec.CmdReset, nil)
		g.restart()
	})
	l.attack(t, "gone in the middle of everything", func(a *attack) {
		for i, c := range []func(*raw){
			func(s *raw) { s.post(codec.CmdDeviceFeature, migState(codec.MigStopCopy)) },
			func(s *raw) {
				s.post(codec.CmdDeviceFeature, migState(codec.MigStopCopy))
				s.post(codec.CmdMigDataRead, migRead(1<<20-64))
			},
			func(s *raw) {
				s.call(codec.CmdDeviceFeature, migState(codec.MigStopCopy))
				s.call(codec.CmdMigDataRead, migRead(100_000))
			},
			func(s *raw) { s.call(codec.CmdDeviceFeature, migState(codec.MigResuming)) },
			func(s *raw) {
				stream := s.saved()
				s.call(codec.CmdDeviceFeature, migState(codec.MigResuming))
				s.call(codec.CmdMigDataWrite, migWrite(stream[:len(stream)/20]))
			},
		} {
			s := a.session()
			c(s)
			s.close()
			l.serves(t)
			if t.Failed() {
				a.Fatalf("after case %d", i)
			}
		}
	})
	l.attack(t, "reads without end", func(a *attack) {
		s := a.session()
		s.saved()
		for range 2_000 {
			s.post(codec.CmdMigDataRead, migRead(1<<20-64))
		}
		s.alive()
	})
	l.attack(t, "a state with bytes changed at random", func(a *attack) {
		g, _ := a.started(64)
		good := g.saved()
		rng := rand.New(rand.NewPCG(2, 2))
		taken := 0
		for range 60 {
			stream := bytes.Clone(good)
			records := migRecords(stream)
			for range 1 + rng.IntN(3) {
				// The first kilobytes of the device's data are what it has to understand.
				r := records[1+rng.IntN(min(3, len(records)-1))]
				if len(r) == 16 {
					continue
				}
				at := 16 + rng.IntN(min(len(r)-16, 4_000))
				r[at] = []byte{r[at] ^ 1<<rng.IntN(8), '0', '9', '-', ',', ']', 0xff}[rng.IntN(7)]
				seal(r)
			}
			g.call(codec.CmdReset, nil)
			g.call(codec.CmdDeviceFeature, migState(codec.MigResuming))
			for part := range slices.Chunk(stream, 1<<20-64) {
				if _, err := g.try(codec.CmdMigDataWrite, migWrite(part)); err != nil {
					break
				}
			}
			if _, err := g.try(codec.CmdDeviceFeature, migState(codec.MigRunning)); err == nil {
				taken++
				g.readRegion(0, spec.RegCSTS, 4)
			}
		}
		t.Logf("%d of 60 states were possible ones", taken)
		g.call(codec.CmdReset, nil)
		g.restart()
	})
}

func TestLoggingOfHostileClients(t *testing.T) {
	forModes(t, []nvme.DoorbellMode{nvme.Trap, nvme.Shadow}, func(t *testing.T, l *lab) {
		l.attack(t, "started and stopped under I/O", func(a *attack) {
			g, q := a.started(1024)
			stop := deviceFeature(codec.FeatureSize, codec.FeatureDMALoggingStop|codec.FeatureSet, nil)
			q.flood(fileNS, ramBase+g.ram.alloc(pageSize))
			for range 200 {
				g.call(codec.CmdDeviceFeature, startLogging(pageSize))
				g.call(codec.CmdDeviceFeature, reportLogging(ramBase, g.ram.size, pageSize))
				g.call(codec.CmdDeviceFeature, stop)
			}
			q.wait(1023)
		})
		l.attack(t, "ranges and reports as large as they can be", func(a *attack) {
			s := a.session()
			var ranges []uint64
			for i := range uint64(65_000) {
				ranges = append(ranges, i<<40, 4096)
			}
			many := startLogging(pageSize, ranges...)
			for range 5 {
				s.call(codec.CmdDeviceFeature, many)
			}
			for range 20 {
				s.post(codec.CmdDeviceFeature, reportLogging(0, 32<<30, pageSize))
				s.post(codec.CmdDeviceFeature, reportLogging(0, 1<<63, 1<<40))
			}
			s.refused(unix.EINVAL, codec.CmdDeviceFeature, reportLogging(0, 1<<63, pageSize))
			s.refused(unix.EINVAL, codec.CmdDeviceFeature, startLogging(2*pageSize))
			s.alive()
		})
		l.attack(t, "memory that is unmapped with its bitmap under I/O", func(a *attack) {
			g, q := a.started(1024)
			g.call(codec.CmdDeviceFeature, startLogging(pageSize))
			q.flood(fileNS, ramBase+g.ram.alloc(pageSize))
			size := codec.BitmapBytes(g.ram.size, pageSize)
			unmap := codec.DMAUnmap{
				ArgSz: uint32(codec.DMAUnmapSize + codec.BitmapSize + size), Flags: codec.UnmapFlagGetDirtyBitmap,
				Addr: ramBase, Size: g.ram.size, Bitmap: codec.Bitmap{PgSize: pageSize, Size: size},
			}
			g.call(codec.CmdDMAUnmap, unmap.Append(nil))
			g.refused(unix.ENOENT, codec.CmdDMAUnmap, unmap.Append(nil))
			g.alive()
		})
	})
}
