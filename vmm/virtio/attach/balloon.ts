// The balloon over guest memory, and what statistics say about it.
import { BalloonDevice } from "../../../devices/virtio/balloon/device.js";
import type { BalloonStatistics } from "../../../devices/virtio/balloon/statistics.js";
import { MappedGuestPages } from "../backends/guest-pages.js";
import type { DeviceOpener } from "../device-host.js";
import { MIB } from "../../memory/layout.js";

const NAME = "balloon0";
/** The guest is asked no more often than this, `ms`: an answer is an interrupt and some work in an idle guest. */
const ASK_MS = 5000;

export const attachBalloon: DeviceOpener = ({ balloon }) => {
  if (balloon === undefined) return [];
  const { targetMib, deflateOnOom, reporting, hinting, statisticsIntervalS } = balloon;
  return [
    {
      name: NAME,
      create: ({ memory, loop, report, expose }) => {
        let guest: BalloonStatistics | undefined;
        let askedMs = -Infinity;
        let isAskedByItself = statisticsIntervalS !== undefined;
        const device = new BalloonDevice({
          name: NAME,
          pages: new MappedGuestPages(memory),
          targetBytes: targetMib * MIB,
          deflateOnOom,
          pageReporting: reporting,
          pageHinting: hinting,
          statisticsIntervalMs: (statisticsIntervalS ?? 0) * 1000,
          onStatistics:
            statisticsIntervalS === 0
              ? undefined
              : (statistics) => {
                  guest = statistics;
                },
          loop,
          report,
        });
        expose({
          balloon: {
            setTarget: (bytes) => {
              device.setTarget(bytes);
            },
            statistics: (isAsked) => {
              // The guest answers later; this is its last answer.
              const mayAsk = isAsked && !isAskedByItself;
              if (mayAsk && loop.now() - askedMs >= ASK_MS && device.requestStatistics()) askedMs = loop.now();
              return { targetBytes: device.targetBytes, actualBytes: device.actualBytes, guest };
            },
            setStatisticsInterval: (seconds) => {
              isAskedByItself = true;
              device.setStatisticsInterval(seconds * 1000);
            },
            startHinting: (endsItself) => {
              device.startHinting(endsItself);
            },
            stopHinting: () => {
              device.stopHinting();
            },
            hintingStatus: () => device.hintingStatus,
          },
        });
        return device;
      },
    },
  ];
};
