// Ctrl-C: the first one asks the demonstration to end (it stops the node and removes its files),
// the second one ends the process at once.
#pragma once

namespace kedge {

// Takes over SIGINT, SIGTERM and SIGHUP. Once, before threads start.
void CatchInterrupts();

// Has one of them come? Any thread.
bool Interrupted();

}  // namespace kedge
