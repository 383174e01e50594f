// Package hosttest holds every host to the contracts of package hostagent: one suite, run on the in-memory host and on
// libvirt with QEMU, so that the one cannot drift from the other.
//
// Here: the suite, and content to serve to hosts. Not here: hosts. Only tests call it.
package hosttest
