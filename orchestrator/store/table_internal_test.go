package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	v1 "daybreak/proto/daybreak/v1"
)

// TestTable compares a table with a plain map, and keeps every version to see that none changes later.
func TestTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now, model := &table{}, map[string]Object{}
		type version struct {
			table *table
			model map[string]Object
		}
		var versions []version
		for range rapid.IntRange(0, 400).Draw(rt, "steps") {
			key := fmt.Sprint(rapid.IntRange(0, 300).Draw(rt, "key"))
			if rapid.IntRange(0, 3).Draw(rt, "drop") == 0 {
				now = now.drop(key)
				delete(model, key)
			} else {
				o := &v1.Zone{}
				now = now.put(key, o)
				model[key] = o
			}
			versions = append(versions, version{now, maps.Clone(model)})
		}
		for _, v := range versions {
			v.table.compare(rt, v.model)
		}
	})
}

func (t *table) compare(rt *rapid.T, model map[string]Object) {
	keys := slices.Sorted(maps.Keys(model))
	for n, o := range listed[*v1.Zone](t) {
		if o != model[keys[n]] {
			rt.Fatalf("entry %d is not that of %s", n, keys[n])
		}
	}
	if t.size != len(model) || len(listed[*v1.Zone](t)) != len(model) {
		rt.Fatalf("size %d, %d listed, want %d", t.size, len(listed[*v1.Zone](t)), len(model))
	}
	for _, probe := range []string{"", "15", "150", "2", "29", "3", "x"} {
		want, exists := model[probe]
		if got, ok := t.get(probe); ok != exists || got != want && ok {
			rt.Fatalf("get %s gives %v, %v", probe, got, ok)
		}
		first := ""
		t.from(probe, func(key string, _ Object) bool {
			first = key
			return false
		})
		at, _ := slices.BinarySearch(keys, probe)
		if at < len(keys) && first != keys[at] || at == len(keys) && first != "" {
			rt.Fatalf("from %s begins at %q", probe, first)
		}
	}
}
