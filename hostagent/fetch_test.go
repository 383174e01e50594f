package hostagent

import (
	"context"
	"slices"
	"testing"

	"github.com/rs/zerolog"
)

// percents is a store whose fetches tell every percent.
type percents struct{ Disks }

func (percents) EnsureBase(_ context.Context, _ string, _ Source, progress func(uint32)) error {
	for percent := range uint32(101) {
		progress(percent)
	}
	return nil
}

// Every desktop that waits for an image reports its progress, so it is told in few steps.
func TestFetchTellsTensOfPercents(t *testing.T) {
	var told []uint32
	var f *fetcher
	f = newFetcher(percents{}, func(context.Context, string) (Source, func()) { return nil, func() {} }, zerolog.Nop(), func(digest string) { told = append(told, f.state(digest).percent) })
	f.fetch(t.Context(), "ab")
	if want := []uint32{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 0}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if !f.state("ab").done {
		t.Error("not done")
	}
}
