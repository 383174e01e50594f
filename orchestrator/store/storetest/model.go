package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// model is a store so simple that it is plainly right.
type model struct {
	revision int64
	zones    map[string]modelZone
}

type modelZone struct {
	text     string
	revision int64
}

// verdict is what committing ops must give.
func (m *model) verdict(ops []store.Op) error {
	for _, op := range ops {
		z, exists := m.zones[op.Ref.Name]
		switch {
		case op.Verb == store.VerbCreate && exists:
			return store.ErrExists
		case op.Verb != store.VerbCreate && z.revision != op.Revision:
			return store.ErrConflict
		}
	}
	return nil
}

func (m *model) apply(ops []store.Op, revision int64) {
	for _, op := range ops {
		switch op.Verb {
		case store.VerbCreate, store.VerbUpdate:
			m.zones[op.Ref.Name] = modelZone{op.Object.(*v1.Zone).Spec.DisplayName, revision}
		case store.VerbDelete:
			delete(m.zones, op.Ref.Name)
		case store.VerbCheck:
		}
	}
	m.revision = revision
}

// testModel runs random transactions against backend and model and compares. Each run of rapid uses names of its own,
// since the backend is the same.
func testModel(ctx context.Context, t *testing.T, b store.Backend) {
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &model{zones: map[string]modelZone{}}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) { m.step(ctx, rt, b, run) },
			"list":   func(rt *rapid.T) { m.compare(ctx, rt, b, run) },
		})
		m.compare(ctx, rt, b, run)
		m.clear(ctx, rt, b)
	})
}

func (m *model) step(ctx context.Context, rt *rapid.T, b store.Backend, run int) {
	var ops []store.Op
	numbers := rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 1, 4, rapid.ID[int]).Draw(rt, "zones")
	for _, n := range numbers {
		ops = append(ops, m.draw(rt, fmt.Sprintf("r%d-%d", run, n)))
	}
	want := m.verdict(ops)
	revision, err := b.Commit(ctx, store.Guard{}, ops)
	if want != nil {
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) || !errors.Is(err, want) {
			rt.Fatalf("commit of %v gave %v, want %v", ops, err, want)
		}
		return
	}
	writes := slices.ContainsFunc(ops, func(op store.Op) bool { return op.Verb != store.VerbCheck })
	if err != nil || revision < m.revision || writes && revision == m.revision {
		rt.Fatalf("commit of %v gave revision %d after %d, %v", ops, revision, m.revision, err)
	}
	m.apply(ops, revision)
}

// draw makes an op that holds more often than not.
func (m *model) draw(rt *rapid.T, name string) store.Op {
	op := store.Op{Ref: zoneRef(name), Revision: m.zones[name].revision}
	op.Verb = rapid.SampledFrom([]store.Verb{store.VerbCheck, store.VerbCreate, store.VerbUpdate, store.VerbDelete}).Draw(rt, "verb")
	if _, exists := m.zones[name]; !exists && op.Verb != store.VerbCheck && rapid.IntRange(0, 4).Draw(rt, "sound") > 0 {
		op.Verb = store.VerbCreate
	}
	if op.Verb != store.VerbCreate && rapid.IntRange(0, 5).Draw(rt, "stale") == 0 {
		op.Revision--
	}
	switch op.Verb {
	case store.VerbUpdate, store.VerbDelete:
		op.Revision = max(op.Revision, 1)
	case store.VerbCheck, store.VerbCreate:
	}
	if op.Verb == store.VerbCreate || op.Verb == store.VerbUpdate {
		op.Object = zone(name, rapid.SampledFrom([]string{"LGWAN接続系", "インターネット", "x"}).Draw(rt, "text"))
	}
	return op
}

func (m *model) compare(ctx context.Context, rt *rapid.T, b store.Backend, run int) {
	objects, revision, err := b.List(ctx, v1.Kind_KIND_ZONE)
	if err != nil || revision < m.revision {
		rt.Fatalf("list at revision %d after %d: %v", revision, m.revision, err)
	}
	if len(objects) != len(m.zones) {
		rt.Fatalf("list of %d, want %d", len(objects), len(m.zones))
	}
	for n := range 6 {
		name := fmt.Sprintf("r%d-%d", run, n)
		want, exists := m.zones[name]
		at := slices.IndexFunc(objects, func(o store.Object) bool { return o.GetMeta().GetName() == name })
		got, err := b.Get(ctx, zoneRef(name))
		if !exists {
			if at >= 0 || !errors.Is(err, store.ErrNotFound) {
				rt.Fatalf("%s is gone, but listed at %d, get gives %v, %v", name, at, got, err)
			}
			continue
		}
		if at < 0 || err != nil {
			rt.Fatalf("%s is there, but listed at %d, get gives %v", name, at, err)
		}
		for _, o := range []store.Object{objects[at], got} {
			if z := o.(*v1.Zone); z.Spec.DisplayName != want.text || z.Meta.Revision != want.revision {
				rt.Fatalf("%s is %v, want %v", name, z, want)
			}
		}
	}
}

// clear leaves the backend empty for the next run.
func (m *model) clear(ctx context.Context, rt *rapid.T, b store.Backend) {
	var ops []store.Op
	for name, z := range m.zones {
		ops = append(ops, store.Op{Verb: store.VerbDelete, Ref: zoneRef(name), Revision: z.revision})
	}
	if _, err := b.Commit(ctx, store.Guard{}, ops); err != nil {
		rt.Fatal(err)
	}
}
