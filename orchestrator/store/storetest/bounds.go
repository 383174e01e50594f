package storetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func testForm(ctx context.Context, t *testing.T, b store.Backend) {
	first := commit(ctx, t, b, store.Create(zone("a", "1")))
	for name, ops := range map[string][]store.Op{
		"one object twice":    {changeZone("a", "2", first), {Verb: store.VerbDelete, Ref: zoneRef("a"), Revision: first}},
		"created twice":       {store.Create(zone("b", "1")), store.Create(zone("b", "2"))},
		"no name":             {store.Create(zone("", "1"))},
		"no kind":             {{Verb: store.VerbCheck, Ref: store.Ref{Name: "a"}}},
		"a kind that is none": {{Verb: store.VerbCheck, Ref: store.Ref{Kind: 4711, Name: "a"}}},
		"no object":           {{Verb: store.VerbCreate, Ref: zoneRef("b")}},
		"a nil object":        {{Verb: store.VerbCreate, Ref: zoneRef("b"), Object: (*v1.Zone)(nil)}},
		"an object misnamed":  {{Verb: store.VerbCreate, Ref: zoneRef("b"), Object: zone("c", "1")}},
		"text not UTF-8":      {store.Create(zone("b", "\xff"))},
		"a verb that is none": {{Verb: 4711, Ref: zoneRef("b")}},
	} {
		t.Run(name, func(t *testing.T) { refuse(ctx, t, b, store.ErrInvalid, ops...) })
	}
	wantZone(ctx, t, b, "a", "1", first)
	wantZone(ctx, t, b, "b", "", 0)
	if _, err := b.Commit(ctx, store.Guard{}, nil); err != nil {
		t.Errorf("an empty transaction: %v", err)
	}
}

func testBounds(ctx context.Context, t *testing.T, b store.Backend) {
	fits := zone("fits", strings.Repeat("漢", (store.MaxObjectBytes-100)/3))
	commit(ctx, t, b, store.Create(fits))
	if o, err := b.Get(ctx, zoneRef("fits")); err != nil || o.(*v1.Zone).Spec.DisplayName != fits.Spec.DisplayName {
		t.Errorf("an object just within the bound: %v", err)
	}
	refuse(ctx, t, b, store.ErrInvalid, store.Create(zone("large", strings.Repeat("x", store.MaxObjectBytes))))
	refuse(ctx, t, b, store.ErrInvalid, store.Create(zone("large", strings.Repeat("x", 10<<20))))
	wantZone(ctx, t, b, "large", "", 0)

	var ops []store.Op
	for i := range store.MaxOps + 1 {
		ops = append(ops, store.Create(zone(fmt.Sprintf("z%d", i), "1")))
	}
	refuse(ctx, t, b, store.ErrInvalid, ops...)
	revision := commit(ctx, t, b, ops[1:]...)
	wantZone(ctx, t, b, fmt.Sprintf("z%d", store.MaxOps), "1", revision)

	ops = nil
	for i := range 8 {
		ops = append(ops, store.Create(zone(fmt.Sprintf("heavy%d", i), strings.Repeat("x", 200<<10))))
	}
	refuse(ctx, t, b, store.ErrInvalid, ops...)
	commit(ctx, t, b, ops[:5]...)
}
