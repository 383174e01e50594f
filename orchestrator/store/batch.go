package store

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// eachOps bounds the transactions of CommitEach: small enough that a conflict makes little work be done again.
const eachOps = 128

// CommitEach commits ops that have nothing to do with each other, in as few transactions as possible. An op that is
// refused (ErrConflict, ErrExists, ErrNotOwner, ErrInvalid) is in failed and keeps no other from being committed.
// revision is that of the last transaction, for Mirror.Wait; 0 when nothing was written. err says that it could not go
// on; ops that are not in failed may then be committed or not.
func (s *Store) CommitEach(ctx context.Context, ops []Op) (revision int64, failed []*OpError, err error) {
	seen := make(map[Ref]bool, len(ops))
	var single []Op
	for _, op := range ops {
		if seen[op.Ref] {
			failed = append(failed, &OpError{Op: op, Err: fmt.Errorf("twice in one batch: %w", ErrInvalid)})
			continue
		}
		seen[op.Ref] = true
		single = append(single, op)
	}
	for len(single) > 0 {
		n := fitting(single)
		last, refused, err := s.commitEach(ctx, single[:n])
		revision = max(revision, last)
		failed = append(failed, refused...)
		if err != nil {
			return revision, failed, err
		}
		single = single[n:]
	}
	return revision, failed, nil
}

// fitting returns how many of the first ops go into one transaction: at least one.
func fitting(ops []Op) int {
	total := 0
	for i, op := range ops {
		if op.Object != nil {
			total += proto.Size(op.Object)
		}
		if i > 0 && (i == eachOps || total > MaxTransactionBytes) {
			return i
		}
	}
	return len(ops)
}

// commitEach commits those of the ops that can be, in one transaction unless some are refused.
func (s *Store) commitEach(ctx context.Context, ops []Op) (revision int64, failed []*OpError, err error) {
	checked, failed, err := s.check(ctx, ops)
	if err != nil {
		return 0, failed, err
	}
	for len(checked) > 0 {
		revision, err = s.backend.Commit(ctx, s.guard, checked)
		refused := opErrors(err)
		if len(refused) == 0 {
			return revision, failed, err
		}
		failed = append(failed, refused...)
		checked = without(checked, refused)
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

func without(ops []Op, refused []*OpError) []Op {
	out := make(map[Ref]bool, len(refused))
	for _, r := range refused {
		out[r.Op.Ref] = true
	}
	var rest []Op
	for _, op := range ops {
		if !out[op.Ref] {
			rest = append(rest, op)
		}
	}
	return rest
}
