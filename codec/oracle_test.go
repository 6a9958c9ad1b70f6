package codec

import (
	"encoding/binary"
	"reflect"
	"strconv"
	"strings"
)

// An oracle is a second decoder, which shares nothing with the first but the protocol's text: it
// walks over a structure that has the fields of a message in their order and, as tags, what is
// said of them. It is slow, and it makes no difference between messages. The tags:
//
//	min:"32"         the least value that is allowed
//	bits:"0xf"       no other bits may be set
//	oneof:"0 1 2"    no other values are allowed
//	if:"Flags&1"     the field is there only if that field has one of these bits
//	len:"Count"      as many elements as that field says, and nothing behind them
//	rest:""          all that is left
//	derived:""       not in the message: valid finds it in what else is there
//
// A field that is called _ has no meaning. What a tag cannot say, a method valid says.
type oracle struct {
	message reflect.Value // the structure
	rest    []byte        // of the payload
	ok      bool
}

// validator is a message with rules that concern several fields. n is the size of its payload.
type validator interface{ valid(n int) bool }

// consult has the oracle decode a payload as the structure that message points to. False is a
// payload that has to be refused.
func consult(message any, payload []byte) bool {
	o := oracle{reflect.ValueOf(message).Elem(), payload, true}
	for i := range o.message.NumField() {
		field := o.message.Type().Field(i)
		if _, derived := field.Tag.Lookup("derived"); derived {
			continue
		}
		if condition := field.Tag.Get("if"); condition != "" && !o.holds(condition) {
			continue
		}
		value := o.message.Field(i)
		if field.Name == "_" {
			value = reflect.New(field.Type).Elem()
		}
		o.read(value, field.Tag)
	}
	if v, is := message.(validator); o.ok && is {
		return v.valid(len(payload))
	}
	return o.ok
}

// number is the value of a field that was read before.
func (o *oracle) number(field string) uint64 { return o.message.FieldByName(field).Uint() }

func (o *oracle) holds(condition string) bool {
	field, mask, _ := strings.Cut(condition, "&")
	return o.number(field)&literal(mask) != 0
}

func literal(text string) uint64 {
	v, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		panic(err)
	}
	return v
}

// take removes the next n bytes from the payload; they are zeroes if there are not as many.
func (o *oracle) take(n int) []byte {
	if len(o.rest) < n {
		o.ok, o.rest = false, nil
		return make([]byte, n)
	}
	b := o.rest[:n]
	o.rest = o.rest[n:]
	return b
}

func (o *oracle) read(value reflect.Value, tag reflect.StructTag) {
	switch value.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		b := make([]byte, 8)
		size := int(value.Type().Size())
		// The host's byte order: a smaller number is the lower bytes, wherever those are.
		at := 0
		if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
			at = 8 - size
		}
		copy(b[at:], o.take(size))
		value.SetUint(binary.NativeEndian.Uint64(b))
		o.check(value.Uint(), tag)
	case reflect.Array:
		for i := range value.Len() {
			o.read(value.Index(i), "")
		}
	case reflect.Struct:
		for i := range value.NumField() {
			field, v := value.Type().Field(i), value.Field(i)
			if field.Name == "_" {
				v = reflect.New(field.Type).Elem()
			}
			o.read(v, field.Tag)
		}
	case reflect.Slice:
		o.list(value, tag)
	default:
		panic("oracle: " + value.Kind().String())
	}
}

func (o *oracle) check(v uint64, tag reflect.StructTag) {
	if least := tag.Get("min"); least != "" && v < literal(least) {
		o.ok = false
	}
	if all := tag.Get("bits"); all != "" && v&^literal(all) != 0 {
		o.ok = false
	}
	if values := strings.Fields(tag.Get("oneof")); len(values) > 0 {
		found := false
		for _, value := range values {
			found = found || v == literal(value)
		}
		o.ok = o.ok && found
	}
}

// list reads what is left as elements.
func (o *oracle) list(value reflect.Value, tag reflect.StructTag) {
	element := value.Type().Elem()
	if element.Kind() == reflect.Uint8 {
		value.SetBytes(o.take(len(o.rest)))
	}
	for len(o.rest) > 0 && o.ok {
		v := reflect.New(element).Elem()
		o.read(v, "")
		value.Set(reflect.Append(value, v))
	}
	if field := tag.Get("len"); field != "" && o.ok && o.number(field) != uint64(value.Len()) {
		o.ok = false
	}
}
