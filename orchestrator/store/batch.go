package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
)

// eachOps bounds the transactions of CommitEach: small enough that a conflict makes little work be done again.
const eachOps = 128

// accountBytes is room that each of them leaves for what is told of it.
const accountBytes = 16 << 10

// CommitEach commits ops that have nothing to do with each other, in as few transactions as possible. An op that is
// refused (ErrConflict, ErrExists, ErrNotOwner, ErrInvalid) is in failed and keeps no other from being committed.
// revision is that of the last transaction, for Mirror.Wait; 0 when nothing was written. err says that it could not go
// on; ops that are not in failed may then be committed or not.
func (s *Store) CommitEach(ctx context.Context, ops []Op) (revision int64, failed []*OpError, err error) {
	groups := make([][]Op, len(ops))
	for i := range ops {
		groups[i] = ops[i : i+1]
	}
	return s.CommitGroups(ctx, groups)
}

// CommitGroups is CommitEach for ops of which some belong together: all of a group are committed in one transaction, or,
// when one of them is refused and so in failed, none. A group must fit into a transaction.
func (s *Store) CommitGroups(ctx context.Context, groups [][]Op) (revision int64, failed []*OpError, err error) {
	return s.CommitTold(ctx, groups, func([]Op) []Op { return nil })
}

// CommitTold is CommitGroups with an account of it: each transaction has besides what tell makes of the ops that it commits, a few
// ops with new objects. When some are refused meanwhile, tell is asked again about the others.
func (s *Store) CommitTold(ctx context.Context, groups [][]Op, tell func(done []Op) []Op) (revision int64, failed []*OpError, err error) {
	seen := make(map[Ref]bool, len(groups))
	var single [][]Op
	for _, group := range groups {
		twice := slices.IndexFunc(group, func(op Op) bool {
			before := seen[op.Ref]
			seen[op.Ref] = true
			return before
		})
		if twice >= 0 {
			failed = append(failed, &OpError{Op: group[twice], Err: fmt.Errorf("twice in one batch: %w", ErrInvalid)})
			continue
		}
		single = append(single, group)
	}
	for len(single) > 0 {
		n := fitting(single)
		last, refused, err := s.commitEach(ctx, single[:n], tell)
		revision = max(revision, last)
		failed = append(failed, refused...)
		if err != nil {
			return revision, failed, err
		}
		single = single[n:]
	}
	return revision, failed, nil
}

// fitting returns how many of the first groups go into one transaction: at least one.
func fitting(groups [][]Op) int {
	ops, total := 0, 0
	for i, group := range groups {
		ops += len(group)
		for _, op := range group {
			if op.Object != nil {
				total += proto.Size(op.Object)
			}
		}
		if i > 0 && (ops > eachOps || total > MaxTransactionBytes-accountBytes) {
			return i
		}
	}
	return len(groups)
}

// commitEach commits those of the groups that can be, in one transaction unless some are refused.
func (s *Store) commitEach(ctx context.Context, groups [][]Op, tell func(done []Op) []Op) (revision int64, failed []*OpError, err error) {
	checked, failed, err := s.check(ctx, slices.Concat(groups...))
	if err != nil {
		return 0, failed, err
	}
	checked = without(checked, groups, failed)
	for len(checked) > 0 {
		told, untold, err := s.check(ctx, tell(checked))
		if err != nil {
			return 0, failed, err
		}
		revision, err = s.backend.Commit(ctx, s.guard, slices.Concat(checked, told))
		refused := opErrors(err)
		if len(refused) == 0 {
			return revision, append(failed, untold...), err // without an account rather than not at all
		}
		failed = append(failed, refused...)
		checked = without(checked, groups, refused)
	}
	return revision, failed, nil
}

// opErrors returns the ops that an error of Commit blames.
func opErrors(err error) []*OpError {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var found []*OpError
		for _, one := range several.Unwrap() {
			found = append(found, opErrors(one)...)
		}
		return found
	}
	var one *OpError
	if errors.As(err, &one) {
		return []*OpError{one}
	}
	return nil
}

// without returns the ops less the groups of those that were refused.
func without(ops []Op, groups [][]Op, refused []*OpError) []Op {
	out := make(map[Ref]bool, len(refused))
	for _, r := range refused {
		out[r.Op.Ref] = true
	}
	for _, group := range groups {
		if !slices.ContainsFunc(group, func(op Op) bool { return out[op.Ref] }) {
			continue
		}
		for _, op := range group {
			out[op.Ref] = true
		}
	}
	var rest []Op
	for _, op := range ops {
		if !out[op.Ref] {
			rest = append(rest, op)
		}
	}
	return rest
}
