package pool

import (
	"context"
	"fmt"
	"strings"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxLimited is how many pools may limit what a user has: each is one step of a claim's transaction.
const maxLimited = store.MaxOps - 8

// underLimit counts what the user holds or waits for in all pools and returns the steps that make the transaction fail
// when that changes in a pool that limits it, too. The names of a user's claims follow from those of the pools, so that a
// claim that is not there can be pinned: of two that are made at once in two such pools, each pins the place of the other,
// and one fails. A pool without a limit asks nobody, so that pinning its claims would settle nothing: theirs may always
// come last.
func (c *Claimer) underLimit(ctx context.Context, pool *v1.Pool, user string) ([]store.Op, error) {
	limit := int(pool.GetSpec().GetClaims().GetMaxPerUser())
	if limit == 0 {
		return nil, nil
	}
	// By the store's newest word: a pool that this mirror has not heard of may lend to the user, too.
	pools, _, err := store.List[*v1.Pool](ctx, c.store)
	if err != nil {
		return nil, fmt.Errorf("list the pools: %w", err)
	}
	var refs []store.Ref
	limited := map[store.Ref]bool{}
	for _, other := range pools {
		if other.GetMeta().GetName() == pool.GetMeta().GetName() {
			continue
		}
		ref := store.Ref{Kind: v1.Kind_KIND_CLAIM, Name: claimName(other.GetMeta().GetName(), user)}
		limited[ref] = other.GetSpec().GetClaims().GetMaxPerUser() > 0
		refs = append(refs, ref)
	}
	var pins []store.Op
	var has []string
	for len(refs) > 0 {
		n := min(len(refs), store.MaxOps)
		found, err := c.store.Fetch(ctx, refs[:n])
		if err != nil {
			return nil, fmt.Errorf("get the user's claims: %w", err)
		}
		for i, object := range found {
			pin := store.Op{Verb: store.VerbCheck, Ref: refs[i]}
			if claim, ok := object.(*v1.Claim); ok && claim != nil {
				pin.Revision = claim.GetMeta().GetRevision()
				has = append(has, claim.GetPool())
			}
			if limited[pin.Ref] {
				pins = append(pins, pin)
			}
		}
		refs = refs[n:]
	}
	if len(has) >= limit {
		return nil, fmt.Errorf("claim a desktop of pool %s: %q holds or waits for %s, of pool %s, and this pool lends to users who have fewer than %d (maxPerUser): %w",
			pool.GetMeta().GetName(), user, plural(len(has), "desktop"), strings.Join(has, ", "), limit, ErrUserLimit)
	}
	if len(pins) > maxLimited {
		return nil, fmt.Errorf("claim a desktop of pool %s: %d pools have maxPerUser, more than the %d that can be asked at once: take it from some: %w",
			pool.GetMeta().GetName(), len(pins)+1, maxLimited+1, ErrUserLimit)
	}
	return pins, nil
}
