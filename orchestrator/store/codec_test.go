package store_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestDecode(t *testing.T) {
	pool := newPool("sales")
	pool.Meta.Revision = 9
	value, err := store.Encode(pool)
	if err != nil {
		t.Fatal(err)
	}
	if pool.Meta.Revision != 9 {
		t.Error("Encode changed what it was given")
	}
	ref := store.RefOf(pool)
	o, err := store.Decode(ref, 12, value)
	if err != nil || o.GetMeta().GetRevision() != 12 || o.(*v1.Pool).Spec.Image != "debian" {
		t.Errorf("got %v, %v", o, err)
	}
	newer := protowire.AppendString(protowire.AppendTag(value, 900, protowire.BytesType), "from a later version")
	o, err = store.Decode(ref, 12, newer)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := store.Encode(o); err != nil || !strings.Contains(string(again), "from a later version") {
		t.Errorf("unknown field lost: %q, %v", again, err)
	}
	for name, row := range map[string]struct {
		ref   store.Ref
		value []byte
	}{
		"garbage":      {ref, []byte("\xff\xff\xff\xff")},
		"empty":        {ref, nil},
		"cut short":    {ref, value[:len(value)-3]},
		"another name": {store.Ref{Kind: v1.Kind_KIND_POOL, Name: "other"}, value},
		"no kind":      {store.Ref{Name: "sales"}, value},
		"bad UTF-8":    {ref, []byte("\x0a\x03\x0a\x01\xff")},
	} {
		if o, err := store.Decode(row.ref, 12, row.value); !errors.Is(err, store.ErrBroken) || !strings.Contains(err.Error(), row.ref.Name) {
			t.Errorf("%s: got %v, %v", name, o, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, o := range []store.Object{newPool("a"), newDesktop("a", "sales"), &v1.Zone{Meta: &v1.Meta{Name: "a"}, Spec: &v1.ZoneSpec{DisplayName: "住民情報系"}}} {
		value, err := store.Encode(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int32(store.KindOf(o)), "a", value)
	}
	f.Fuzz(func(t *testing.T, kind int32, name string, value []byte) {
		ref := store.Ref{Kind: v1.Kind(kind), Name: name}
		o, err := store.Decode(ref, 7, value)
		if err != nil {
			if !errors.Is(err, store.ErrBroken) {
				t.Fatalf("error without its sentinel: %v", err)
			}
			return
		}
		if store.RefOf(o) != ref || o.GetMeta().GetRevision() != 7 {
			t.Fatalf("decoded %v for %v", store.RefOf(o), ref)
		}
		encoded, err := store.Encode(o)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		again, err := store.Decode(ref, 7, encoded)
		if err != nil || !proto.Equal(o, again) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

func TestKindNames(t *testing.T) {
	for _, kind := range store.Kinds() {
		o, err := store.New(kind)
		if err != nil || store.KindOf(o) != kind || store.KindByName(store.KindName(kind)) != kind {
			t.Errorf("kind %v: %v, %v", kind, o, err)
		}
	}
	for _, name := range []string{"", "unspecified", "POOL", "pools", "kind_pool", "1"} {
		if kind := store.KindByName(name); kind != v1.Kind_KIND_UNSPECIFIED {
			t.Errorf("%q is %v", name, kind)
		}
	}
}
