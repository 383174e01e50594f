package hostagent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// How bases are looked after.
const (
	// DefaultKeepImages is how long a base stays that nothing needs any more: an admin may change their mind.
	DefaultKeepImages = 24 * time.Hour
	// scrubEvery is how old the comparison of a base with its manifest may become.
	scrubEvery = 7 * 24 * time.Hour
	// scrubBytes a second are read for it: a disk hardly notices that.
	scrubBytes  = 32 << 20
	scrubPeriod = time.Hour
)

// clearBases has bases go that nothing needs: no assignment, no wanted image, no fetch, and by what the store finds no overlay,
// no VM and no build. Until the control plane has said in this agent's life what is wanted, nothing goes.
func (a *Agent) clearBases(ctx context.Context) error {
	keep, known := a.needed()
	if !known {
		return nil
	}
	a.fetcher.mendOnly(keep)
	gone, err := a.disks.TrashBases(ctx, keep, time.Now().Add(-a.cfg.KeepImages))
	for _, digest := range gone {
		a.fetcher.lost(digest)
		a.log.Info().Str("digest", digest).Dur("unused_for", a.cfg.KeepImages).Msg("an image that nothing needs any more was removed from this host")
	}
	return err
}

// needed are the bases that assignments name, that are wanted, asked for or being fetched.
func (a *Agent) needed() (digests map[string]bool, known bool) {
	digests, known = a.fetcher.needed()
	for _, e := range a.book.all() {
		digests[e.assignment.GetIncarnation().GetDigest()] = true
	}
	return digests, known
}

// scrub compares bases again and again, one at a time and slowly, for as long as the agent runs: a disk rots where nobody
// looks. A damaged one is fetched again, what is good of it included.
func (a *Agent) scrub(ctx context.Context) error {
	for {
		again := time.Now().Add(scrubPeriod)
		if a.frozen() == "" {
			digest, damaged, err := a.disks.Scrub(ctx, time.Now().Add(-scrubEvery), scrubBytes)
			switch {
			case err != nil && ctx.Err() == nil:
				a.log.Warn().Err(err).Msg("an image was not compared anew; it will be tried again")
			case damaged:
				a.log.Error().Str("digest", digest).Msg("an image on this host is damaged; it is set aside, and fetched again if it is needed")
				a.fetcher.lost(digest)
				if needed, _ := a.needed(); needed[digest] {
					a.fetcher.mend(digest)
				}
				a.book.signal()
			}
			if err == nil && digest != "" {
				again = time.Now().Add(time.Minute)
			}
		}
		if !sleepUntil(ctx, again, nil) {
			return ctx.Err()
		}
	}
}

// needed are the bases that are wanted, asked for or being fetched. It is not known before the control plane said so once.
func (f *fetcher) needed() (digests map[string]bool, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	digests = maps.Clone(f.wanted)
	maps.Copy(digests, f.asked)
	for digest, base := range f.bases {
		if base.running {
			digests[digest] = true
		}
	}
	return digests, f.told
}

// mend fetches a base that was found damaged.
func (f *fetcher) mend(digest string) {
	f.mu.Lock()
	f.mending[digest] = true
	f.mu.Unlock()
	f.signal()
}

// mendOnly forgets damaged bases that are not needed any more.
func (f *fetcher) mendOnly(needed map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.mending, func(digest string, _ bool) bool { return !needed[digest] })
}

// unmended says which bases were found damaged and are not there again; empty when there are none.
func (f *fetcher) unmended() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	digests := slices.Sorted(maps.Keys(f.mending))
	if len(digests) == 0 {
		return ""
	}
	return fmt.Sprintf("%d images on this host were found damaged and are being fetched again, the first is %.12s", len(digests), digests[0])
}
