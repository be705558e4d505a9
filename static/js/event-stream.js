// @ts-check

const RETRY_SECONDS = 2;

/**
 * Listen to the server's events until told to end. It notices when it hears nothing, and connects again: the server sends
 * at least a ping every ten seconds.
 * @param {object} stream
 * @param {() => string} stream.address where to go on from, asked for at each connection
 * @param {Record<string, (event: MessageEvent) => void>} stream.on what each event does
 * @param {(lost: boolean) => void} [stream.onConnection] whether the connection was just lost or made
 * @param {number} stream.silence seconds without an event after which the connection counts as lost
 * @returns {() => void} ends it
 */
export function listenToEvents({ address, on, onConnection = () => {}, silence }) {
  /** @type {EventSource | null} */
  let source = null;
  let timer = 0;
  let ended = false;

  function hear() {
    clearTimeout(timer);
    timer = setTimeout(retry, silence * 1000);
  }

  function retry() {
    if (ended) return;
    source.close();
    clearTimeout(timer);
    onConnection(true);
    timer = setTimeout(connect, RETRY_SECONDS * 1000);
  }

  function connect() {
    if (ended) return;
    clearTimeout(timer);
    if (source) source.close();
    source = new EventSource(address());
    hear();
    source.addEventListener("open", () => {
      hear();
      onConnection(false);
    });
    source.addEventListener("ping", hear);
    source.addEventListener("error", retry);
    source.addEventListener("gone", () => {
      end();
      location.reload();
    });
    for (const [name, act] of Object.entries(on)) {
      source.addEventListener(name, (event) => {
        hear();
        if (!ended) act(event);
      });
    }
  }

  function end() {
    ended = true;
    clearTimeout(timer);
    if (source) source.close();
    window.removeEventListener("online", connect);
  }

  window.addEventListener("online", connect);
  connect();
  return end;
}
