package codec

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
)

// oracles say, by form, what the oracle takes a message for. A VERSION has one of its own.
var oracles = map[string]func() any{
	"DMA_MAP request":                                func() any { return new(oDMAMap) },
	"DMA_UNMAP request":                              func() any { return new(oUnmap) },
	"DMA_UNMAP request with bitmap":                  func() any { return new(oUnmap) },
	"DMA_UNMAP reply":                                func() any { return new(oUnmapReply) },
	"GET_INFO":                                       func() any { return new(oDeviceInfo) },
	"GET_REGION_INFO request":                        func() any { return new(oRegionInfo) },
	"GET_REGION_INFO reply":                          func() any { return new(oRegionInfoReply) },
	"GET_REGION_INFO reply with a type":              func() any { return new(oRegionInfoReply) },
	"GET_REGION_IO_FDS request":                      func() any { return new(oIOFDsRequest) },
	"GET_REGION_IO_FDS reply":                        func() any { return new(oIOFDs) },
	"GET_REGION_IO_FDS reply with a shadow":          func() any { return new(oIOFDs) },
	"GET_IRQ_INFO":                                   func() any { return new(oIRQInfo) },
	"SET_IRQS request":                               func() any { return new(oSetIRQs) },
	"REGION_READ request":                            func() any { return new(oRegionAccess) },
	"REGION_READ reply":                              func() any { return new(oRegionData) },
	"REGION_WRITE request":                           func() any { return new(oRegionData) },
	"REGION_WRITE reply":                             func() any { return new(oRegionAccess) },
	"DMA_READ request":                               func() any { return new(oDMAAccess) },
	"DMA_READ reply":                                 func() any { return new(oDMAData) },
	"DMA_WRITE request":                              func() any { return new(oDMAData) },
	"DMA_WRITE reply":                                func() any { return new(oWriteReply) },
	"REGION_WRITE_MULTI request":                     func() any { return new(oWriteMulti) },
	"REGION_WRITE_MULTI reply":                       func() any { return new(oWriteMultiReply) },
	"DEVICE_FEATURE":                                 func() any { return new(oFeature) },
	"DEVICE_FEATURE data MIGRATION":                  func() any { return new(oMigrationFlags) },
	"DEVICE_FEATURE data MIG_DEVICE_STATE":           func() any { return new(oMigState) },
	"DEVICE_FEATURE data DMA_LOGGING_START":          func() any { return new(oLogging) },
	"DEVICE_FEATURE data DMA_LOGGING_REPORT request": func() any { return new(oReport) },
	"DEVICE_FEATURE data DMA_LOGGING_REPORT reply":   func() any { return new(oReportReply) },
	"MIG_DATA_READ request":                          func() any { return new(oMigRead) },
	"MIG_DATA_READ reply":                            func() any { return new(oMigReadReply) },
	"MIG_DATA_WRITE request":                         func() any { return new(oMigData) },
}

// FuzzDifferential: a form takes exactly the payloads that the oracle takes, reads what it reads,
// and writes what the oracle reads as the same.
//
//fuzz:covers codec/dmaaccess.go codec/dmalogging.go codec/dmamap.go codec/dmaunmap.go codec/deviceinfo.go codec/feature.go codec/iofds.go
//fuzz:covers codec/irqinfo.go codec/migdata.go codec/migration.go codec/regionaccess.go codec/regioninfo.go codec/setirqs.go codec/writemulti.go
func FuzzDifferential(f *testing.F) {
	seedForms(f)
	f.Fuzz(func(t *testing.T, which uint8, payload []byte) {
		all := forms()
		checkOracle(t, all[int(which)%len(all)], payload)
	})
}

// checkOracle compares what a form makes of a payload with what its oracle does.
func checkOracle(t *testing.T, form form, payload []byte) {
	t.Helper()
	oracle := oracles[form.name]
	if oracle == nil {
		return
	}
	want := oracle()
	taken := consult(want, payload)
	if err := form.decode(payload); (err == nil) != taken {
		t.Fatalf("%s: got %v; the oracle takes it: %v", form.name, err, taken)
	}
	if !taken {
		return
	}
	if err := same(want, form.message); err != nil {
		t.Fatalf("%s: %v", form.name, err)
	}
	b, want := form.encode(nil), oracle()
	if !consult(want, b) {
		t.Fatalf("%s: the oracle does not take what was written:\n% x", form.name, b)
	}
	if err := same(want, form.message); err != nil {
		t.Fatalf("%s: written: %v", form.name, err)
	}
}

func TestEveryFormHasAnOracle(t *testing.T) {
	known := map[string]bool{"VERSION": true}
	for _, form := range forms() {
		known[form.name] = true
		if oracles[form.name] == nil && form.name != "VERSION" {
			t.Errorf("%s has none", form.name)
		}
	}
	for name := range oracles {
		if !known[name] {
			t.Errorf("there is no %s", name)
		}
	}
	for _, op := range ops {
		for direction, size := range map[string]int{" request": op.RequestSize, " reply": op.ReplySize} {
			if size > 0 && !known[op.Name] && !known[op.Name+direction] {
				t.Errorf("%s%s has no form", op.Name, direction)
			}
		}
	}
}

// same compares what the oracle read with a message, field by field, by their names.
func same(want, got any) error {
	// These give access to lists by function.
	switch m := got.(type) {
	case *WriteMulti:
		if m.Writes != nil {
			view := oWriteMulti{Count: m.Count}
			for i := range int(m.Count) {
				a := m.Write(i)
				w := oSingleWrite{Offset: a.Offset, Region: a.Region, Count: a.Count}
				if copy(w.Data[:], a.Data) != int(a.Count) {
					return fmt.Errorf("write %d has %d bytes, want %d", i, len(a.Data), a.Count)
				}
				view.Writes = append(view.Writes, w)
			}
			for i := range want.(*oWriteMulti).Writes { // behind the data is anything
				w := &want.(*oWriteMulti).Writes[i]
				clear(w.Data[w.Count:])
			}
			got = &view
		}
	case *DMALogging:
		view := oLogging{PageSize: m.PageSize, Count: m.Count}
		for i := range int(m.Count) {
			view.Ranges = append(view.Ranges, oRange(m.Range(i)))
		}
		got = &view
	}
	return sameValue("", reflect.ValueOf(want).Elem(), reflect.ValueOf(got).Elem())
}

func sameValue(name string, want, got reflect.Value) error {
	if !got.IsValid() {
		return fmt.Errorf("%s is missing", name)
	}
	switch want.Kind() {
	case reflect.Struct:
		if got.Kind() != reflect.Struct { // a message of one value
			return sameValue(name, want.FieldByName("Value"), got)
		}
		for i := range want.NumField() {
			field := want.Type().Field(i).Name
			if field == "_" || field == "Rest" {
				continue
			}
			if err := sameValue(name+"."+field, want.Field(i), got.FieldByName(field)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Slice, reflect.Array:
		if want.Type().Elem().Kind() == reflect.Uint8 && want.Kind() == reflect.Slice {
			if !bytes.Equal(want.Bytes(), got.Bytes()) {
				return fmt.Errorf("%s is % x, want % x", name, got.Bytes(), want.Bytes())
			}
			return nil
		}
		if want.Len() != got.Len() {
			return fmt.Errorf("%s has %d elements, want %d", name, got.Len(), want.Len())
		}
		for i := range want.Len() {
			if err := sameValue(fmt.Sprintf("%s[%d]", name, i), want.Index(i), got.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	if want.Uint() != got.Uint() {
		return fmt.Errorf("%s is %#x, want %#x", name, got.Uint(), want.Uint())
	}
	return nil
}
