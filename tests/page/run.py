#!/usr/bin/env python3
"""The status page in a headless Chromium, served by `trailhound demo`: content, refresh, keyboard, narrow and wide, light and
dark, no error on the console, and what it says once the daemon is gone. Needs chromium and chromedriver in PATH, and selenium.

    tests/page/run.py --binary target/debug/trailhound [--screenshots FOLDER]
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 60
problems = []


def check(holds, what):
    print(("ok       " if holds else "FAILED   ") + what)
    if not holds:
        problems.append(what)


def until(condition):
    """Polls until a condition holds; gives its value, or what it gave last."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return value


def start(binary, log):
    daemon = subprocess.Popen([binary, "demo", "--listen", "127.0.0.1:0"], stdout=log, stderr=subprocess.STDOUT)
    text = lambda: pathlib.Path(log.name).read_text(errors="replace")
    address = until(lambda: re.search(r"daemon +(http://127\.0\.0\.1:\d+)/", text()))
    # The story is over.
    done = until(lambda: "Going on until Ctrl-C" in text() or daemon.poll() is not None)
    if not address or not done or daemon.poll() is not None:
        sys.exit(f"the demo does not start:\n{text()}")
    return daemon, address[1] + "/", int(re.search(r"^ +alerts +(\d+)", text(), re.M)[1])


def browser():
    options = webdriver.ChromeOptions()
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]:
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def shown(driver):
    """When the figures on the page were read."""
    return driver.execute_script("return document.getElementById('live').dataset.at")


def headers(address):
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        policy = answer.headers["Content-Security-Policy"]
        check(answer.headers["Content-Type"] == "text/html; charset=utf-8", "it is HTML")
        check("default-src 'none'" in policy and "unsafe" not in policy, f"the policy is strict: {policy}")
        check(answer.headers["Cache-Control"] == "no-store", "nobody keeps it")
        page = answer.read().decode()
    check(not re.search(r"(src|href)=\"(https?:)?//", page), "no resource from outside")


def content(driver, told):
    texts = lambda selector: [it.text for it in driver.find_elements(By.CSS_SELECTOR, selector)]
    check(texts(".verdict") == ["Ready"], "it says that the daemon is ready")
    check(len(texts(".charts figure")) == 6, "six charts")
    check(driver.execute_script("return [...document.querySelectorAll('polyline')].every(it => it.points.length > 1)"), "each is drawn")
    alerts = texts("#alerts tbody tr")
    check(len(alerts) == min(told, 20), f"the story's alerts: {len(alerts)} of {told}")
    check(any("StopLogging" in it and "CRITICAL" in it and "111122223333" in it for it in alerts), "each with severity, event and account")
    check(any("ends_early" in it for it in texts("#failures tbody tr")), "the file that is cut off, with its reason")
    rules = texts("#rules tbody tr")
    check(len(rules) == 100 and "attack-tool-user-agent" in rules[0] and "more in" in texts("#rules")[0], "rules, those with most matches first")
    check("The last load succeeded" in texts("#rules")[0], "the last load of the rules")


def keyboard(driver):
    driver.switch_to.active_element.send_keys(Keys.TAB)
    focused = lambda: driver.switch_to.active_element
    check(focused().text == "Skip to the figures", "the first stop of the keyboard leads to the figures")
    focused().send_keys(Keys.TAB)
    check(focused().text == "Pause updates", "the second pauses")
    focused().send_keys(Keys.ENTER)
    check(focused().get_attribute("aria-pressed") == "true", "Enter pauses the page")
    focused().send_keys(Keys.ENTER)
    check(focused().get_attribute("aria-pressed") == "false", "and again resumes it")
    for _ in range(3):
        focused().send_keys(Keys.TAB)
    check("scroll" in (focused().get_attribute("class") or ""), "tables can be scrolled by keyboard")
    before = shown(driver)
    until(lambda: shown(driver) != before)
    check("scroll" in (focused().get_attribute("class") or ""), "a refresh leaves the focus where it was")


def refreshes(driver):
    driver.execute_script("window.marker = 1")
    before = shown(driver)
    check(until(lambda: shown(driver) != before), "the figures are refreshed")
    check(driver.execute_script("return window.marker === 1"), "without loading the page again")


def looks(driver, folder):
    colours = set()
    for scheme in ["light", "dark"]:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        colours.add(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        for width in [360, 1280]:
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            wide = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
            check(wide[0] <= wide[1], f"{scheme}, {width} px: nothing stands over the edge ({wide[0]} of {wide[1]})")
            small = driver.execute_script(
                "return [...document.querySelectorAll('main *, header *')].filter(it => it.innerText && parseFloat(getComputedStyle(it).fontSize) < 12).length"
            )
            check(small == 0, f"{scheme}, {width} px: no text below 12 px")
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
                driver.get_screenshot_as_file(str(folder / f"{scheme}-{width}.png"))
    check(len(colours) == 2, "light and dark differ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--screenshots", type=pathlib.Path)
    given = parser.parse_args()
    with tempfile.NamedTemporaryFile() as log:
        daemon, address, told = start(given.binary, log)
        try:
            headers(address)
            driver = browser()
            try:
                driver.get(address)
                # It stands still while it is read.
                pause = driver.find_element(By.ID, "pause")
                pause.click()
                content(driver, told)
                pause.click()
                driver.get(address)
                keyboard(driver)
                refreshes(driver)
                looks(driver, given.screenshots)
                errors = [it["message"] for it in driver.get_log("browser") if it["level"] in ("SEVERE", "WARNING")]
                check(not errors, f"nothing on the console: {errors}")
                daemon.terminate()
                daemon.wait(PATIENCE)
                stale = driver.find_element(By.ID, "stale")
                check(until(stale.is_displayed), "once the daemon is gone the page says that it is old")
            finally:
                driver.quit()
        finally:
            daemon.kill()
            daemon.wait()
    print(f"{len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
